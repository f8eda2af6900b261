"""The original records beside the samples made of them, kept on disk for access by index.

A record is everything that was read from one place (file and line); one that was split has several samples.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ytrain.data.dataset import TokenDataset
from ytrain.data.preparation import DataSource
from ytrain.data.reading import DataFile, read_records
from ytrain.data.records import Text
from ytrain_api.errors import DataError


class Records:
    """The records that have samples, in the order of the files.

    Raises:
        DataError: the files no longer hold what the samples were made of.
    """

    def __init__(self, sources: Sequence[DataSource], dataset: TokenDataset, copy: Path) -> None:
        self._file = copy
        self.places: list[tuple[str, int]] = []
        """File and line of each record."""
        self.firsts: list[int] = []
        """First sample of each record, and the number of samples at the end."""
        self._offsets: list[int] = []
        for sample in range(len(dataset)):
            tokens = dataset[sample]
            if not self.places or self.places[-1] != (tokens.source, tokens.line):
                self.places.append((tokens.source, tokens.line))
                self.firsts.append(sample)
        self.firsts.append(len(dataset))
        self._copy(sources)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        """The original record."""
        with self._file.open("rb") as file:
            file.seek(self._offsets[index])
            return json.loads(file.readline())

    def lines(self) -> Iterator[str]:
        """Every record as a line of JSON."""
        with self._file.open(encoding="utf-8", newline="\n") as file:
            yield from file

    def samples(self, index: int) -> range:
        """The samples of a record."""
        return range(self.firsts[index], self.firsts[index + 1])

    def per_record(self, values: np.ndarray) -> np.ndarray:
        """Sums over the samples of each record."""
        sums: np.ndarray = np.add.reduceat(values, self.firsts[:-1])
        return sums

    def _copy(self, sources: Sequence[DataSource]) -> None:
        offset = 0
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("wb") as out:
            for source in sources:
                for name, path in source.files:
                    for raw in read_records(DataFile(path, name)):
                        found = len(self._offsets)
                        if found == len(self.places) or self.places[found] != (name, raw.line):
                            continue  # unusable: it is in skipped.jsonl
                        value = {"text": raw.value.text} if isinstance(raw.value, Text) else raw.value
                        line = _line(value)
                        out.write(line)
                        self._offsets.append(offset)
                        offset += len(line)
        if len(self._offsets) != len(self.places):
            source_name, line_number = self.places[len(self._offsets)]
            raise DataError(f"{source_name}:{line_number}: was changed while it was scored; run the job again")


def _line(value: Any) -> bytes:
    try:
        return (json.dumps(value, ensure_ascii=False, default=str) + "\n").encode()  # a table may hold dates
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold
        return (json.dumps(value, default=str) + "\n").encode()


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a record, in its order: what the duplicates and the oddities look at."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("role", "from", "id", "ID"):
                yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)
