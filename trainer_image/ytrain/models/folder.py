"""Writing a folder so that it is either complete or absent: staged beside its place, synced, renamed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from ytrain_api.errors import SpecError, TrainingError


def check_empty(folder: Path, *, field: str) -> None:
    """Refuse a place where something lies already.

    Raises:
        SpecError: `folder` is a file, or a folder with something in it.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise SpecError(f"{field}: {folder} is not empty; name another folder, or move away what is there")
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"{field}: {folder} is a file; name a folder")


def check_writable(folder: Path, *, field: str) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made; writes nothing.

    Raises:
        SpecError: a part of its path is a file, or may not be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    if not there.is_dir():
        raise SpecError(f"{field}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SpecError(
            f"{field}: {there} cannot be written by user {os.getuid()}; let this user write there, or name another "
            "folder"
        )


@contextmanager
def staged(folder: Path, *, when_full: str = "Free space, then run the same command again") -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and is removed when not.

    Raises:
        TrainingError: the disk is full, of which `when_full` ends the message; or somebody has written there meanwhile.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(stage, ignore_errors=True)
    with full_disk_told(f"{folder} could not be written and was removed; {when_full}"):
        try:
            stage.mkdir()
            yield stage
            _readable_as(stage)
            sync(stage)
            if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
                raise TrainingError(
                    f"{folder}: something was written there meanwhile, and what was to lie there was removed; move it "
                    "away, then run the same command again"
                )
            if folder.is_dir():
                folder.rmdir()  # an empty one: rename does not replace folders on every system
            stage.rename(folder)
            _sync_path(folder.parent)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise


@contextmanager
def full_disk_told(message: str) -> Iterator[None]:
    """Turns a full disk, whoever finds it, into a failure that says so.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        # safetensors wraps the operating system's error in one of its own.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, TrainingError) or not (full or "No space left" in str(error)):
            raise
        raise TrainingError(f"the disk is full: {message}") from error


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


def _readable_as(folder: Path) -> None:
    """Give a folder's files the readers that the folder has: safetensors lets their owner alone read them."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
