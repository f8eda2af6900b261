"""Writing a model folder so that it is either complete or absent: staged beside its place, synced, renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from ytrain_api.errors import SpecError


def check_empty(folder: Path, *, field: str) -> None:
    """Refuse a place where something lies already.

    Raises:
        SpecError: `folder` is a file, or a folder with something in it.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise SpecError(f"{field}: {folder} is not empty; name another folder, or move away what is there")
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"{field}: {folder} is a file; name a folder")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and is removed when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
        sync(stage)
        if folder.is_dir():
            folder.rmdir()  # an empty one: rename does not replace folders on every system
        stage.rename(folder)
        _sync_path(folder.parent)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def sync(folder: Path) -> None:
    """Force a folder's files, and their names, to the disk."""
    for path in folder.rglob("*"):
        _sync_path(path)
    _sync_path(folder)


def digest(folder: Path) -> str:
    """A digest over the names and bytes of all files of a folder, `xxh3:<hex>`."""
    total = xxhash.xxh3_128()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)}\0{file_digest(path)}\n".encode())
    return f"xxh3:{total.hexdigest()}"


def file_digest(path: Path) -> str:
    """The XXH3 digest (128 bit, hex) of a file's bytes."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(2**22):
            state.update(block)
    return state.hexdigest()


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
