"""What a build is told of the machine that it runs on, and what a home-made base forgets of it."""

import subprocess
from pathlib import Path

import pytest
from tests.image.base import forget
from tests.image.site import FILES, MOUNTED, write_site

pytestmark = pytest.mark.unit


def sourced(folder: Path, *names: str) -> list[str]:
    script = f". {folder}/environment; printf '%s\\n' " + " ".join(f'"${name}"' for name in names)
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()


def test_settings_travel_as_variables_and_files(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "ca.pem").write_text("authorities")
    (tmp_path / "uv.toml").write_text("system-certs = true")
    address = "https://user:it's@packages.example/simple"
    environment = {
        "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        "UV_DEFAULT_INDEX": address,
        "SECRET": "stays here",
    }
    write_site(site, environment)
    assert sourced(site, "SSL_CERT_FILE", "PIP_CERT", "UV_CONFIG_FILE", "UV_DEFAULT_INDEX", "SECRET") == [
        f"{MOUNTED}/certificates.pem",
        f"{MOUNTED}/certificates.pem",
        f"{MOUNTED}/UV_CONFIG_FILE",
        address,
        "",
    ]
    assert (site / "certificates.pem").read_text() == "authorities"
    assert (site / "UV_CONFIG_FILE").read_text() == "system-certs = true"


def test_a_machine_without_settings_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in FILES:
        monkeypatch.setitem(FILES, variable, (tmp_path / "no such file",))
    write_site(tmp_path, {"SSL_CERT_FILE": str(tmp_path / "none")})
    assert (tmp_path / "environment").read_text() == ""


def test_a_base_forgets_the_machine_and_keeps_licences(tmp_path: Path) -> None:
    for name, text in {
        "etc/hostname": "this machine",
        "etc/resolv.conf": "nameserver 10.0.0.1",
        "etc/apt/sources.list": "deb https://mirror.example/debian bookworm main",
        "usr/share/doc/tini/copyright": "MIT",
        "usr/share/doc/tini/README.md": "long",
        "var/log/bootstrap.log": "mirror.example",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    forget(tmp_path)
    left = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(left) == {"etc/apt/sources.list", "usr/share/doc/tini/copyright"}
    assert "mirror.example" not in left["etc/apt/sources.list"]
