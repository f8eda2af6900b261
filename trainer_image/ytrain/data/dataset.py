"""Random access to tokenised samples that lie in memory-mapped Arrow files; memory does not grow with the corpus.

It reads what tokenising.py wrote. Nothing is padded: a sample is as long as it is.
"""

import json
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ytrain.data.order import epoch_samples

SCHEMA = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("supervised", pa.list_(pa.uint8()), nullable=False),
        pa.field("file", pa.int32(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("labels", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A sequence of tokens and which of them are labels."""

    input_ids: npt.NDArray[np.int32]
    """Token ids `[T]`."""
    supervised: npt.NDArray[np.bool_]
    """`[T]`: token t is a label, predicted from the tokens before it. Never true at 0."""
    source: str
    """Where the record came from."""
    line: int
    """1-based line, or row, of the record."""


RELEASED_AFTER = 16
"""Samples after which the pages that were read are left to the system's cache: one may have mapped megabytes."""


class _Part:
    """The samples of one Arrow file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._read = 0
        reader = pa.ipc.open_file(pa.py_buffer(self._map))
        self.names: list[str] = json.loads(reader.schema.metadata[b"files"])
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        self._batches = [batch.columns[:4] for batch in batches]
        self._firsts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self.lengths = np.concatenate([np.empty(0, np.int32), *(_lengths(batch) for batch in batches)])
        counts = [batch.column("labels").to_numpy() for batch in batches]
        self.supervised_counts = np.concatenate([np.empty(0, np.int32), *counts])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> Sample:
        batch = int(np.searchsorted(self._firsts, index, side="right")) - 1
        ids, supervised, files, lines = self._batches[batch]
        row = index - int(self._firsts[batch])
        self._release()
        return Sample(
            input_ids=ids[row].values.to_numpy(),
            supervised=supervised[row].values.to_numpy().view(np.bool_),
            source=self.names[files[row].as_py()],
            line=lines[row].as_py(),
        )

    def _release(self) -> None:
        """Keep this process's memory small, however much of the file it reads; what refers to a page reads it anew."""
        self._read += 1
        if self._read % RELEASED_AFTER == 0:
            self._map.madvise(mmap.MADV_DONTNEED)


def _lengths(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    lengths: npt.NDArray[np.int32] = np.diff(batch.column("input_ids").offsets.to_numpy())
    return lengths


class TokenDataset:
    """The samples that epochs see in file order, each source as often as an epoch sees it, rounded up.

    Args:
        parts: an Arrow file of each source, and how often an epoch sees its samples.
    """

    def __init__(self, parts: Sequence[tuple[Path, float]]) -> None:
        self._repeats = [repeat for _, repeat in parts]
        self._parts = [(_Part(path), math.ceil(repeat)) for path, repeat in parts]
        self._firsts = np.cumsum([0, *(len(part) * copies for part, copies in self._parts)])
        empty = np.empty(0, np.int32)
        self.lengths: npt.NDArray[np.int32] = np.concatenate(
            [empty, *(np.tile(part.lengths, copies) for part, copies in self._parts)]
        )
        """Tokens of each sample `[N]`."""
        self.supervised_counts: npt.NDArray[np.int32] = np.concatenate(
            [empty, *(np.tile(part.supervised_counts, copies) for part, copies in self._parts)]
        )
        """Labels of each sample `[N]`."""

    @property
    def longest_prompt(self) -> int:
        """Most tokens of a sample that are no labels."""
        return int((self.lengths - self.supervised_counts).max())

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def epoch_samples(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Indices of the samples that an epoch sees, in file order; which, matters where a source is seen in part."""
        parts = [(len(part), repeat) for (part, _), repeat in zip(self._parts, self._repeats, strict=True)]
        return epoch_samples(parts, seed, epoch)

    def __getitem__(self, index: int) -> Sample:
        """The sample; its arrays are read-only views of the mapped file."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        at = int(np.searchsorted(self._firsts, index, side="right")) - 1
        part, _ = self._parts[at]
        return part[(index - int(self._firsts[at])) % len(part)]
