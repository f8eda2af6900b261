"""What each image is made of, and the key that names this content.

An image is built when its key is new. The table below repeats the Dockerfile's COPY lines, and a test holds them equal.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_BOTH = (
    ".dockerignore",
    "Dockerfile",
    "LICENSE",
    "pyproject.toml",
    "requirements/build.txt",
    "crds/ytrain_api",
)

SOURCES = {
    "trainer": (*_BOTH, "requirements/deepspeed.txt", "trainer_image/ytrain"),
    "operator": (*_BOTH, "requirements/operator.txt", "operator/ytrain_operator"),
}
"""By target of the Dockerfile, the files and folders that go into it."""

KEY_LENGTH = 12


def content_key(root: Path, target: str, circumstances: Iterable[str] = ()) -> str:
    """A name for what `target` would be made of now: names, bytes and executable bits of its files.

    Args:
        circumstances: whatever else decides what comes out, such as the base image.
    """
    digest = hashlib.sha256()
    for text in circumstances:
        digest.update(f"{text}\0".encode())
    for path in source_files(root, SOURCES[target]):
        executable = bool(path.stat().st_mode & 0o100)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()}\0{executable}\0{content}\0".encode())
    return digest.hexdigest()[:KEY_LENGTH]


def source_files(root: Path, sources: Iterable[str]) -> Iterator[Path]:
    """Files of a list of files and folders, in a fixed order, without bytecode.

    Raises:
        FileNotFoundError: one is missing, which the build would find out much later.
    """
    for source in sorted(sources):
        path = root / source
        if path.is_file():
            yield path
            continue
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: an image needs it; see the COPY lines of the Dockerfile")
        yield from sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
