"""The trainer's image as a cluster runs it: a user without a name, a read-only root, no network, no compiler."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import read_lines, write_job
from tests.conftest import write_chats
from tests.image.build import ROOT, Image, Settings, build, ensure_stored
from tests.image.builders import BUILDAH, find_builder
from tests.image.container import LIMIT_SECONDS, Containers, mounted

pytestmark = pytest.mark.e2e

BYTECODE = """
import pathlib, sys
def compiles(path):  # PyTorch has a file for newer Pythons only
    try:
        return compile(path.read_bytes(), path, "exec") is not None
    except SyntaxError:
        return False

site = pathlib.Path(sys.prefix, "lib").glob("python3.*/site-packages")
files = [path for folder in site for path in folder.rglob("*.py")]
cached = lambda path: path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
bare = [path for path in files if not cached(path).is_file() and compiles(path)]
print(len(files), len(bare), *bare[:5])
"""

ORPHAN = """
import pathlib, subprocess, time
orphan = subprocess.run(["sh", "-c", "sleep 0.1 >&2 & echo $!"], stdout=subprocess.PIPE, text=True).stdout.strip()
entry, end = pathlib.Path("/proc", orphan), time.monotonic() + 60
while entry.exists() and time.monotonic() < end:
    time.sleep(0.05)
print("zombies:", int(entry.exists()))
"""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.from_environment()


@pytest.fixture(scope="module")
def image(settings: Settings) -> Image:
    """Built, if it is not."""
    if find_builder(settings.builder) is not BUILDAH:
        pytest.skip("containers are started from buildah's store")
    made = build("trainer", settings)
    ensure_stored(made, settings)
    return made


@pytest.fixture(scope="module")
def config(image: Image) -> dict[str, Any]:
    said = subprocess.run(["buildah", "inspect", "--type", "image", image.name], capture_output=True, check=True).stdout
    return dict(json.loads(said)["OCIv1"])


@pytest.fixture(scope="module")
def containers(image: Image, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    with mounted(image.name) as root:
        yield Containers(root=root, config=config["config"], folder=tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def work(tmp_path: Path, model_folder: Path) -> Path:
    """A folder that the container's user may write to, with a job's data and the small model."""
    work = tmp_path / "work"
    work.mkdir()
    write_chats(work / "chats.jsonl", 20)
    subprocess.run(["cp", "-r", str(model_folder), str(work / "model")], check=True)
    subprocess.run(["chmod", "-R", "a+rX", str(work)], check=True)  # safetensors writes files for their owner only
    work.chmod(0o777)
    return work


def job(work: Path, **changes: Any) -> str:
    settings = {path.replace("__", "."): value for path, value in changes.items()}
    settings |= {"workers.deviceResource": "none"}
    return f"/tmp/work/{write_job(work, Path('/tmp/work/model'), settings).name}"


def test_it_says_what_it_can_do(containers: Containers, image: Image) -> None:
    ended = containers.run()
    assert ended.code in (0, 2)
    assert "worker" in containers.run("--help").output
    print(f"{image.short_name}: {image.archive.stat().st_size / 1e6:.0f} MB")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_nameless_user_trains_on_a_read_only_root(containers: Containers, work: Path, processes: int) -> None:
    ended = containers.run("run", job(work), "--workdir", "/tmp/work/run", "--processes", str(processes), work=work)
    assert ended.code == 0, ended.output
    assert len(read_lines(work / "run/metrics.jsonl")) == 10
    assert (work / "run/output/model.safetensors").is_file()


@pytest.mark.parametrize(("stage", "offload"), [(2, "optimizer"), (3, "parameters")])
def test_deepspeed_compiles_nothing(containers: Containers, work: Path, stage: int, offload: str) -> None:
    block = {"zeroStage": stage, "offload": offload}
    ended = containers.run("run", job(work, deepspeed=block), "--workdir", "/tmp/work/run", work=work)
    assert ended.code == 0, ended.output
    assert len(read_lines(work / "run/metrics.jsonl")) == 10


def test_the_code_inside_is_this_trees(containers: Containers) -> None:
    (packages,) = containers.root.glob("opt/ytrain/lib/python3.*/site-packages")
    for folder in (ROOT / "trainer_image/ytrain", ROOT / "crds/ytrain_api"):
        for path in folder.rglob("*.py"):
            inside = packages / path.relative_to(folder.parent)
            assert inside.read_bytes() == path.read_bytes(), path


def test_the_root_is_read_only_and_the_user_nobody(containers: Containers) -> None:
    ended = containers.run("sh", "-c", "id -u; touch /opt/ytrain/x; touch /tmp/x && echo tmp", entrypoint=False)
    assert "43210" in ended.output
    assert "Read-only file system" in ended.output
    assert "tmp" in ended.output.splitlines()


def test_no_compiler_is_inside(containers: Containers) -> None:
    names = "cc gcc g++ c++ clang nvcc make ld"
    ended = containers.run("sh", "-c", f"for name in {names}; do command -v $name; done; true", entrypoint=False)
    assert (ended.code, ended.output) == (0, "")


def test_every_module_has_its_bytecode(containers: Containers) -> None:
    ended = containers.run("python", "-c", BYTECODE, entrypoint=False)
    files, bare, *_ = ended.output.split()
    assert int(files) > 5000, ended.output
    assert int(bare) == 0, ended.output


def test_nothing_of_the_building_machine_is_inside(containers: Containers, config: dict[str, Any]) -> None:
    root = containers.root
    for name in ("etc/pip.conf", "etc/uv", "etc/hostname", "etc/resolv.conf", "root/.config", "tmp"):
        path = root / name
        left = [*path.iterdir()] if path.is_dir() else [path] if path.is_file() and path.stat().st_size else []
        assert not left, left
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    certificates = {"".join(body.split()) for body in re.findall(r"-----BEGIN[^-]*-----([^-]*)-----END", bundle)}
    assert len(certificates) > 100
    for own in Path("/usr/local/share/ca-certificates").glob("*.crt"):
        (body, *_) = re.findall(r"-----BEGIN[^-]*-----([^-]*)-----END", own.read_text())
        assert "".join(body.split()) not in certificates, f"{own} of this machine is in the image"
    assert not re.search(r"INDEX|CERT|PROXY", " ".join(config["config"]["Env"]))


def test_it_says_who_it_is(config: dict[str, Any]) -> None:
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["Entrypoint"] == ["tini", "--", "ytrain"]
    assert config["config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_process_1_takes_note_of_orphans(containers: Containers) -> None:
    ended = containers.run("tini", "--", "python", "-c", ORPHAN, entrypoint=False)
    assert "zombies: 0" in ended.output


def test_process_1_hears_sigterm_at_once(containers: Containers, work: Path) -> None:
    (work / "token").write_text("sixteen characters and more")
    arguments = ("--launcher", "http://127.0.0.1:9", "--index", "0", "--workdir", "/tmp/work/run")
    with containers.started("worker", *arguments, "--token-file", "/tmp/work/token", work=work) as (name, process):
        # A process 1 that has not begun to handle signals ignores them: tini has when the worker speaks.
        said = next((line for line in process.stdout if "waiting for the launcher" in line), None)
        assert said is not None, process.wait()
        subprocess.run(["runc", "kill", name, "TERM"], check=True)
        assert process.wait(timeout=LIMIT_SECONDS) == 128 + signal.SIGTERM
