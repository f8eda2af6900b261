"""Keeps tokenised sources in folders named by the digest of all that decides their content.

An entry appears whole or not at all: written under a temporary name, then renamed. A damaged one is written again.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from ytrain.data.accounting import DataReport
from ytrain.data.dataset import SCHEMA, Sample

FORMAT_VERSION = 5
"""Raised whenever the same inputs give other tokens or another file layout."""
TOKENS = "tokens.arrow"
SKIPPED = "skipped.jsonl"
_REPORT = "report.json"
_BATCH_TOKENS = 1 << 20


def cache_key(parts: Any) -> str:
    """Digest of a JSON value together with the versions of what renders and encodes."""
    versions = {name: version(name) for name in ("transformers", "tokenizers", "jinja2")}
    value = json.dumps([FORMAT_VERSION, versions, parts], sort_keys=True, default=str)
    return xxhash.xxh3_128_hexdigest(value.encode())


def file_digest(path: Path) -> str:
    """Digest of a file's content, read in pieces."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def combined_digest(digests: Iterable[str]) -> str:
    """Digest of several digests, in their order."""
    return xxhash.xxh3_128_hexdigest(" ".join(digests).encode())


def load_entry(folder: Path) -> DataReport | None:
    """The report of a stored entry, or None if there is none or it is damaged."""
    try:
        stored = json.loads((folder / _REPORT).read_text())
        intact = file_digest(folder / TOKENS) == stored["digest"]
        return DataReport.model_validate(stored["report"]) if intact else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds the right to write an entry, so that of several ranks one tokenises and the others find it done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever held it before has removed it; then another one may hold its successor.
            if _is_at(lock.fileno(), path):
                try:
                    yield
                finally:
                    path.unlink()
                return


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that the path leads to."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


class EntryWriter:
    """Writes an entry next to its place; `finish` moves it there, leaving the context without it discards it.

    To be used by whoever holds the right to (`claimed`): what a process that was killed left behind is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "EntryWriter":
        self._draft = self._folder.with_name(f".{self._folder.name}.draft")
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir()
        self.log = (self._draft / SKIPPED).open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()
        shutil.rmtree(self._draft, ignore_errors=True)

    def write(self, samples: Iterable[Sample], files: Sequence[str]) -> None:
        """Streams the samples to the token file in batches of about a million tokens."""
        schema = SCHEMA.with_metadata({"files": json.dumps(list(files))})
        numbers = {name: number for number, name in enumerate(files)}
        with pa.OSFile(str(self._draft / TOKENS), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            batch: list[Sample] = []
            tokens = 0
            for sample in samples:
                batch.append(sample)
                tokens += len(sample.input_ids)
                if tokens >= _BATCH_TOKENS:
                    writer.write_batch(_record_batch(batch, numbers, schema))
                    batch, tokens = [], 0
            if batch:
                writer.write_batch(_record_batch(batch, numbers, schema))

    def finish(self, report: DataReport) -> None:
        """Puts the entry in its place. Where another process was faster, its equal entry is kept."""
        self.log.close()
        stored = {"digest": file_digest(self._draft / TOKENS), "report": report.to_json()}
        (self._draft / _REPORT).write_text(json.dumps(stored))
        if load_entry(self._folder) is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._draft.rename(self._folder)


def _record_batch(samples: Sequence[Sample], numbers: dict[str, int], schema: pa.Schema) -> pa.RecordBatch:
    offsets = pa.array(np.cumsum([0, *(len(sample.input_ids) for sample in samples)], dtype=np.int32))
    ids = np.concatenate([sample.input_ids for sample in samples])
    mask = np.concatenate([sample.supervised for sample in samples]).view(np.uint8)
    columns = [
        pa.ListArray.from_arrays(offsets, pa.array(ids)),
        pa.ListArray.from_arrays(offsets, pa.array(mask)),
        pa.array([numbers[sample.source] for sample in samples], pa.int32()),
        pa.array([sample.line for sample in samples], pa.int64()),
        pa.array([np.count_nonzero(sample.supervised) for sample in samples], pa.int32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
