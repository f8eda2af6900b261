"""Opens data files, plain or compressed, counts what was read of them, and says in a user's words what went wrong.

Bytes are those on disk, so that the share of a compressed corpus that is done is right too.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ytrain_api.errors import DataError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Last part of a compressed file's name, and what pyarrow calls its format."""
_BUFFER_BYTES = 1 << 20


@dataclass
class BytesRead:
    """How many bytes were read of the files of a source."""

    count: int = 0


def data_suffix(path: Path) -> str:
    """What type the data are of, such as `.jsonl` for `a.jsonl.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return inner.suffix.lower()


@contextmanager
def opened(path: Path, done: BytesRead) -> Iterator[Any]:
    """The decompressed bytes of a file, to be iterated by lines."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    with _Counted(path, done) as raw:
        if compression is None:
            yield io.BufferedReader(raw, _BUFFER_BYTES)
        else:
            inner = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
            yield io.BufferedReader(inner, _BUFFER_BYTES)


def unreadable(name: str, error: OSError) -> DataError:
    """What a user reads of a file that the system or its compression does not let be read to the end."""
    if error.errno is not None:
        return DataError(f"{name}: cannot be read: {error.strerror}. Mend that, or remove the file from the data.")
    if name.endswith(tuple(COMPRESSIONS)):
        return DataError(
            f"{name}: cannot be decompressed to its end ({error}); the file is cut off or damaged. Fetch it again, or"
            " remove it from the data."
        )
    return DataError(f"{name}: cannot be read: {error}. Mend that, or remove the file from the data.")


class _Counted(io.FileIO):
    def __init__(self, path: Path, done: BytesRead) -> None:
        super().__init__(path)
        self._done = done

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._done.count += count or 0
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._done.count += len(data)
        return data
