"""What this machine needs for downloads, as a folder that a build mounts and that no image keeps.

Inside a build there is neither the machine's list of certificate authorities nor its settings for pip, uv and proxies.
"""

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

MOUNTED = "/tmp/site"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

FILES = {
    "PIP_CONFIG_FILE": (Path("/etc/pip.conf"), Path("~/.config/pip/pip.conf"), Path("~/.pip/pip.conf")),
    "UV_CONFIG_FILE": (Path("/etc/uv/uv.toml"), Path("~/.config/uv/uv.toml")),
}
"""Settings in files, by the variable that leads to another place; of several the last one counts."""

VARIABLES = (
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_URL",
)
"""Passed on if set. Proxies are passed on by the builders themselves."""


def write_site(folder: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Fill `folder` with what the Dockerfile's commands source and read."""
    exports = {name: environment[name] for name in VARIABLES if name in environment}
    certificates = Path(environment.get("SSL_CERT_FILE", CERTIFICATES))
    if certificates.is_file():
        shutil.copyfile(certificates, folder / "certificates.pem")
        exports |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT"), f"{MOUNTED}/certificates.pem")
    for variable, candidates in FILES.items():
        named = [Path(environment[variable])] if variable in environment else []
        found = [path.expanduser() for path in (*candidates, *named) if path.expanduser().is_file()]
        if found:
            shutil.copyfile(found[-1], folder / variable)
            exports[variable] = f"{MOUNTED}/{variable}"
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(exports.items())]
    (folder / "environment").write_text("".join(lines))
