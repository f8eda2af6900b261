"""An image is built again exactly when something that goes into it is another."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.image.build import ROOT, Settings, image_of
from tests.image.content import SOURCES, content_key, source_files

pytestmark = pytest.mark.unit


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of all sources, with a little in each."""
    for source in {source for sources in SOURCES.values() for source in sources}:
        path = tmp_path / source
        if (ROOT / source).is_dir():
            path.mkdir(parents=True, exist_ok=True)
            path /= "module.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path


def edit(name: str) -> Callable[[Path], object]:
    return lambda tree: (tree / name).write_text("other")


@pytest.mark.parametrize(
    ("change", "trainer", "operator"),
    [
        (edit("trainer_image/ytrain/module.py"), True, False),
        (edit("trainer_image/ytrain/new.py"), True, False),
        (edit("operator/ytrain_operator/module.py"), False, True),
        (edit("crds/ytrain_api/module.py"), True, True),
        (edit("requirements/deepspeed.txt"), True, False),
        (edit("requirements/operator.txt"), False, True),
        (edit("Dockerfile"), True, True),
        (edit("README.md"), False, False),
        (lambda tree: (tree / "trainer_image/ytrain/module.py").chmod(0o755), True, False),
        (
            lambda tree: (tree / "trainer_image/ytrain/module.py").rename(tree / "trainer_image/ytrain/m.py"),
            True,
            False,
        ),
        (lambda tree: (tree / "trainer_image/ytrain/module.py").touch(), False, False),
    ],
)
def test_the_key_follows_the_content(
    tree: Path, change: Callable[[Path], object], trainer: bool, operator: bool
) -> None:
    before = {target: content_key(tree, target) for target in SOURCES}
    change(tree)
    assert (content_key(tree, "trainer") != before["trainer"]) is trainer
    assert (content_key(tree, "operator") != before["operator"]) is operator


def test_the_key_ignores_bytecode_and_the_place_of_the_clone(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("clone") / "tree"
    shutil.copytree(tree, other)
    cache = other / "trainer_image/ytrain/__pycache__"
    cache.mkdir()
    (cache / "module.cpython-312.pyc").write_bytes(b"bytecode")
    assert content_key(other, "trainer") == content_key(tree, "trainer")


def test_the_key_knows_the_circumstances(tree: Path) -> None:
    keys = {content_key(tree, "trainer", circumstances) for circumstances in ([], ["a", "b"], ["ab"], ["b", "a"])}
    assert len(keys) == 4


def test_a_missing_source_is_named(tree: Path) -> None:
    (tree / "requirements/deepspeed.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"requirements/deepspeed\.txt: an image needs it"):
        content_key(tree, "trainer")


def test_the_dockerfile_copies_what_the_key_is_made_of() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    keyed = {source for sources in SOURCES.values() for source in sources} - {"Dockerfile", ".dockerignore"}
    assert copied == keyed


def test_the_builder_sees_what_the_key_is_made_of_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert allowed == {source for sources in SOURCES.values() for source in sources} - {"Dockerfile", ".dockerignore"}


def test_wheels_and_base_belong_to_the_trainers_name(tmp_path: Path) -> None:
    plain = image_of("trainer", Settings(cache=tmp_path))
    (tmp_path / "torch-2.13.0+cpu-cp311.whl").touch()
    wheels = image_of("trainer", Settings(cache=tmp_path, wheels=tmp_path))
    based = image_of("trainer", Settings(cache=tmp_path, base="python:3.13"))
    assert len({plain.tag, wheels.tag, based.tag}) == 3
    assert plain.name == f"docker.io/{plain.short_name}"
    assert plain.archive.parent == tmp_path


def test_only_files_are_read(tree: Path) -> None:
    assert all(path.is_file() for path in source_files(tree, SOURCES["trainer"]))
