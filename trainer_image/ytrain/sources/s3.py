"""Brings models and data from buckets into a cache on this machine, pinned by the ETags of what was read.

The cache holds each object once, under a name made of endpoint, bucket, key and ETag (its date where it has none), and
for every set of objects that a source named a folder of links to them. Of a model only weights as safetensors,
configuration and tokenizer are brought: nothing that could execute code.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ytrain.sources.bucket import Bucket, Object
from ytrain.sources.hub import MODEL_FILES
from ytrain.sources.location import GLOB_MARKS, Location
from ytrain_api.errors import DataError, SpecError

_WEIGHTS = ".safetensors"
_NAME_BYTES = 255  # the longest name that file systems take; keys may have 1024


@dataclass(frozen=True)
class Fetched:
    """What a source named, at hand."""

    folder: Path
    """Stands for the bucket: keys are paths below it."""
    revision: str
    """Digest over the keys and ETags (or dates) of what the source needs of the bucket."""
    ignored: tuple[str, ...]
    """Keys that lie there too and are of no readable type."""


def fetch(
    location: Location,
    suffixes: Collection[str],
    *,
    cache: Path,
    weights: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Fetched:
    """Brings what a location names, as far as the cache has not got it; processes that want the same do it once.

    Args:
        suffixes: file types to bring of data, such as `.jsonl`; none for a model or a single file.
        cache: folder that is this module's own.
        weights: whether to bring a model's weights too; without, their links lead nowhere yet.
        tell: hears now and then how far it is; what it raises ends the transfer.

    Raises:
        SpecError: no such bucket, object or prefix, no access, a model without safetensors, or a cache that cannot be
            written.
        DataError: no data lie there.
        TransientError: the endpoint does not answer, or the bucket changes meanwhile.
    """
    bucket = Bucket(location.root, location.uri)
    needed, ignored = _data(bucket, location, suffixes) if suffixes else (_model(bucket, location), ())
    _check_names(location, needed)
    revision = _digest(f"{each.key}\0{each.state}" for each in needed)
    bring = [each for each in needed if weights or not each.key.endswith(_WEIGHTS)]
    folder = cache / "snapshots" / _digest([bucket.endpoint, bucket.name]) / revision
    stored = {
        each: cache / "objects" / _digest([bucket.endpoint, bucket.name, each.key, each.state]) for each in needed
    }
    _check_writable(cache)
    if any(_missing(stored, each) for each in bring):
        partial = cache / "partial" / folder.parent.name / revision
        with _locked(partial.with_suffix(".lock"), location, tell):
            _bring(bucket, [each for each in bring if _missing(stored, each)], stored, partial, tell)
    for each, path in stored.items():
        link = folder / each.key
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            link.symlink_to(path.absolute())
    return Fetched(folder, revision, ignored)


def matches(key: str, pattern: str) -> bool:
    """Whether a glob matches a key as it would a path: `*` stays within a folder, `**` is any number of them."""
    return _matches(key.split("/"), pattern.split("/"))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _model(bucket: Bucket, location: Location) -> list[Object]:
    """The one object that a location names, or those of the model directly below it."""
    if location.path and (single := bucket.find(location.path)):
        return [single]
    base = f"{location.path}/" if location.path else ""
    found = bucket.list(base, subfolders=False)
    if not found:
        raise SpecError(f"{location.uri}: the bucket has no such object, and none directly below it. Check the path.")
    needed = [each for each in found if any(fnmatchcase(each.key[len(base) :], form) for form in MODEL_FILES)]
    if not any(each.key.endswith(_WEIGHTS) for each in needed):
        raise SpecError(
            f"{location.uri}: holds no weights as safetensors. Pickled weights (.bin, .pt) are not loaded, because they"
            " can execute code. Convert the model with save_pretrained and upload that."
        )
    return needed


def _data(bucket: Bucket, location: Location, suffixes: Collection[str]) -> tuple[list[Object], tuple[str, ...]]:
    """The data of an object, a prefix with all below it, or a glob; and the keys of what is none."""
    path, base = location.path, ""
    if path and (single := bucket.find(path)):
        found = [single]
    elif any(mark in path for mark in GLOB_MARKS):
        whole = path[: min(path.index(mark) for mark in GLOB_MARKS if mark in path)].rpartition("/")[0]
        found = [each for each in bucket.list(f"{whole}/" if whole else "") if matches(each.key, path)]
    else:
        base = f"{path}/" if path else ""
        found = bucket.list(base)
    if not found:
        raise DataError(
            f"{location.uri}: the bucket has no such object, none below it, and none that it matches as a glob. Check "
            "the path."
        )

    def readable(key: str) -> bool:
        hidden = bool(base or not path) and any(part.startswith(".") for part in key[len(base) :].split("/"))
        return not hidden and key.lower().endswith(tuple(suffixes))

    return [each for each in found if readable(each.key)], tuple(each.key for each in found if not readable(each.key))


def _check_names(location: Location, needed: Sequence[Object]) -> None:
    """Raises:
    SpecError: a key that cannot be the path of a file, or not beside the others.
    """
    keys = {each.key for each in needed}
    for key in keys:
        parts = key.split("/")
        if any(part in ("", ".", "..") or len(part.encode()) > _NAME_BYTES for part in parts) or any(
            str(above) in keys for above in PurePosixPath(key).parents
        ):
            raise SpecError(
                f"{location.uri}: the key {key!r} cannot be the path of a file beside the others. Copy the object to "
                "another key, or name the others by a glob."
            )


def _check_writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"--cache: {cache} cannot be made ({error.strerror}); name a folder that can") from error
    if not os.access(cache, os.W_OK | os.X_OK):
        raise SpecError(f"--cache: {cache} cannot be written by user {os.getuid()}; name a folder that can")


def _bring(
    bucket: Bucket,
    objects: Sequence[Object],
    stored: dict[Object, Path],
    partial: Path,
    tell: Callable[[str], None],
) -> None:
    """Download beside their place and move there what is whole; what a killed process left is removed first."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for each, path in bucket.fetch([(each, partial / stored[each].name) for each in objects], tell):
        stored[each].parent.mkdir(parents=True, exist_ok=True)
        path.replace(stored[each])
    shutil.rmtree(partial)


def _missing(stored: dict[Object, Path], each: Object) -> bool:
    path = stored[each]
    return not path.is_file() or path.stat().st_size != each.size  # a loss of power may leave a file short


@contextmanager
def _locked(lock: Path, location: Location, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock of the machine's processes; released with the process, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell(f"another process downloads {location.uri}")
                time.sleep(0.2)
        yield


def _digest(parts: Collection[str] | Iterator[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
