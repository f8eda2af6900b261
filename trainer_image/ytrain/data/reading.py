"""Streams the records of one file, each with its line, whatever the file's type; memory does not grow with the file.

A line that cannot be decoded costs that line, and a text that is none costs that text. A file of records that is not
UTF-8, or is broken as a whole, is a `DataError`.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ytrain.data.opening import COMPRESSIONS, BytesRead, data_suffix, opened, unreadable
from ytrain.data.records import Text
from ytrain_api.errors import DataError

TEXT_BLOCK_CHARACTERS = 1 << 20
"""A text file is handed on in pieces of about this size, cut at line ends."""
_JSON_BLOCK_CHARACTERS = 1 << 20
_PARQUET_ROWS = 16
"""Rows that are in memory at a time; each may be a book."""
_FIELD_CHARACTERS = 1 << 26
"""Longest field of a table: a quote that is never closed would otherwise swallow the rest of the file."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """What one line, row or array element holds: a decoded value, or the fault that made it undecodable."""

    line: int
    """1-based line where the record starts; in a Parquet file the 1-based row. No two records of a file share it."""
    value: Any = None
    fault: str | None = None


@dataclass(frozen=True)
class DataFile:
    """A file to be read."""

    path: Path
    name: str
    """How messages call it."""
    done: BytesRead = field(default_factory=BytesRead)
    """Is counted up."""


def read_records(file: DataFile) -> Iterator[RawRecord]:
    """Streams the records of a file of one of the types `SUFFIXES`, which may be compressed.

    Raises:
        DataError: a file of records is not UTF-8, its frame (JSON array, CSV header, Parquet footer) is broken, or it
            cannot be read or decompressed to its end.
    """
    try:
        yield from _READERS[data_suffix(file.path)](file)
    except _NotUtf8 as error:
        raise DataError(f"{file.name}:{error.line}: the file is {error}") from error
    except OSError as error:
        raise unreadable(file.name, error) from error


class _NotUtf8(Exception):
    """A file that is not UTF-8; the words say what it is instead and what to do."""

    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line


def _lines(file: DataFile) -> Iterator[str]:
    """Decoded lines with their line ends. A byte-order mark is dropped."""
    offset = 0
    with opened(file.path, file.done) as stream:
        for number, raw in enumerate(stream, start=1):
            start, offset = offset, offset + len(raw)
            if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise _NotUtf8(1, f"UTF-16, not UTF-8. {_convert(file.name, 'UTF-16')}")
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                at = len(raw) - len(error.object) + error.start  # error.object lacks the byte-order mark
                raise _NotUtf8(
                    number,
                    f"not UTF-8: byte 0x{raw[at]:02x} at offset {start + at} of the file."
                    f" {_convert(file.name, 'WINDOWS-1252')}",
                ) from error


def _convert(name: str, encoding: str) -> str:
    stem = name.rsplit("/", 1)[-1]
    return f"Convert it, for example: iconv -f {encoding} -t UTF-8 {stem} > utf8-{stem}"


def _decode_line(number: int, line: str) -> RawRecord:
    try:
        return RawRecord(number, json.loads(line.rstrip()))
    except (ValueError, RecursionError) as error:
        at = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return RawRecord(number, fault=_words(error) + at)


def _words(error: ValueError | RecursionError) -> str:
    """What json found wrong; Python refuses whole numbers of more than 4300 digits."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg.removesuffix(" at")  # some of its messages end so, for the place that follows
    return "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"


def _read_jsonl(file: DataFile) -> Iterator[RawRecord]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.isspace():
            yield _decode_line(number, line)


def _read_json(file: DataFile) -> Iterator[RawRecord]:
    """Streams an array. An object is one record, or holds the array under `data`, or is the first of JSON lines."""
    filled = (line for line in _lines(file) if not line.isspace())
    first = next(filled, "")
    if first.lstrip().startswith("["):
        yield from _read_array(file)
        return
    if next(filled, None) is not None and _decode_line(1, first).fault is None:
        yield from _read_jsonl(file)
        return
    if not first:
        return
    try:
        value = json.loads("".join(_lines(file)))
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{file.name}{line}: broken JSON: {_words(error)}") from error
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        for number, record in enumerate(value["data"], start=1):
            yield RawRecord(number, record)
    else:
        yield RawRecord(1, value)


class _Cursor:
    """A moving window over the characters of a file that knows its line."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.text = ""
        self.line = 1

    def fill(self, characters: int) -> bool:
        """Appends about so many characters; False at the end of the file."""
        parts = [self.text]
        wanted = characters
        for line in self._lines:
            parts.append(line)
            wanted -= len(line)
            if wanted <= 0:
                break
        before = len(self.text)
        self.text = "".join(parts)
        return len(self.text) > before

    def skip(self, position: int) -> None:
        self.line += self.text.count("\n", 0, position)
        self.text = self.text[position:]

    def peek(self) -> str:
        """Drops white space and returns the next character, or '' at the end."""
        while True:
            stripped = self.text.lstrip()
            self.skip(len(self.text) - len(stripped))
            if self.text or not self.fill(_JSON_BLOCK_CHARACTERS):
                return self.text[:1]


def _read_array(file: DataFile) -> Iterator[RawRecord]:
    """Where several records begin in a line, as in an array without line breaks, they count on from the one before."""
    cursor = _Cursor(_lines(file))
    last = 0
    decoder = json.JSONDecoder()
    cursor.peek()
    expected = "["
    while True:
        found = cursor.peek()
        if found == "]" and expected != "[":
            break
        if found != expected:
            raise DataError(f"{file.name}:{cursor.line}: broken JSON: expected {expected!r} or ']', found {found!r}")
        cursor.skip(1)
        if cursor.peek() == "]" and expected == "[":
            break
        last, value = max(cursor.line, last + 1), _element(cursor, decoder, file.name)
        yield RawRecord(last, value)
        expected = ","
    cursor.skip(1)
    if found := cursor.peek():
        raise DataError(
            f"{file.name}:{cursor.line}: broken JSON: the array ends, and then comes {found!r}; put all records into "
            "one array, or one on each line of a .jsonl file"
        )


def _element(cursor: _Cursor, decoder: json.JSONDecoder, name: str) -> Any:
    wanted = _JSON_BLOCK_CHARACTERS
    while True:
        try:
            value, end = decoder.raw_decode(cursor.text)
        except (ValueError, RecursionError) as error:
            line = cursor.line
            if isinstance(error, json.JSONDecodeError):
                if cursor.fill(wanted):  # the element may go on beyond the window
                    wanted *= 2
                    continue
                line += error.lineno - 1
            raise DataError(
                f"{name}:{line}: broken JSON in an array: {_words(error)}; nothing after it can be read"
            ) from error
        cursor.skip(end)
        return value


def _read_table(file: DataFile, dialect: str) -> Iterator[RawRecord]:
    csv.field_size_limit(_FIELD_CHARACTERS)
    rows = csv.reader(_lines(file), dialect=dialect, strict=True)
    start = 1
    header: list[str] | None = None
    while True:
        start = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield RawRecord(start, fault=str(error))
            continue
        if row is None:
            return
        if not row:
            continue
        if header is None:
            header = [column.strip() for column in row]
            if len(set(header)) < len(header):
                raise DataError(
                    f"{file.name}:{start}: the header names a column twice: {', '.join(header)}. Rename one."
                )
        elif len(row) != len(header):
            yield RawRecord(start, fault=f"{len(row)} fields where the header has {len(header)}")
        else:
            yield RawRecord(start, dict(zip(header, row, strict=True)))


def _read_text(file: DataFile) -> Iterator[RawRecord]:
    """One document, in pieces: each but the last does not end the document. A file that is no text is a fault."""
    piece: list[str] = []
    start, size, begins = 1, 0, True
    try:
        for number, line in enumerate(_lines(file), start=1):
            if "\0" in line:
                raise _NotUtf8(number, "binary, not text: it holds a zero byte. Remove it from the data.")
            if size >= TEXT_BLOCK_CHARACTERS:
                yield RawRecord(start, Text("".join(piece), begins=begins, ends=False))
                piece, start, size, begins = [], number, 0, False
            piece.append(line)
            size += len(line)
    except _NotUtf8 as error:
        yield RawRecord(error.line, fault=str(error))
        return
    yield RawRecord(start, Text("".join(piece), begins=begins))


def _read_parquet(file: DataFile) -> Iterator[RawRecord]:
    size, done = file.path.stat().st_size, file.done.count
    with _parquet(file) as table:
        row = 0
        try:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for value, fault in _rows(batch.cast(_in_microseconds(batch.schema), safe=False)):
                    row += 1
                    yield RawRecord(row, value and {key: _dense(entry) for key, entry in value.items()}, fault)
                file.done.count = done + size * row // table.metadata.num_rows
        except pa.ArrowInvalid as error:
            raise DataError(f"{file.name}: not a readable Parquet file: {error}") from error


def _rows(batch: pa.RecordBatch) -> list[tuple[Any, str | None]]:
    """Rows as Python values, or why one is none: a text that is not UTF-8, a date beyond the year 9999."""
    try:
        return [(value, None) for value in batch.to_pylist()]
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [(None, str(error))]
        return [row for number in range(batch.num_rows) for row in _rows(batch.slice(number, 1))]


def _dense(value: Any) -> Any:
    """A nested value without nulls: a column of structs gives each row the keys of all, such as every argument of
    every function that any row calls."""
    if isinstance(value, dict):
        return {key: _dense(entry) for key, entry in value.items() if entry is not None}
    return [_dense(entry) for entry in value] if isinstance(value, list) else value


def _in_microseconds(schema: pa.Schema) -> pa.Schema:
    """The schema with times that Python can hold: pandas writes nanoseconds, which pyarrow refuses to cut off."""
    return pa.schema([field.with_type(_shortened(field.type)) for field in schema])


def _shortened(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_shortened(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_shortened(field.type)) for field in kind.fields])
    return kind


def _parquet(file: DataFile) -> Any:
    try:
        return pq.ParquetFile(file.path, memory_map=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file.name}: not a readable Parquet file: {error}") from error


def columns(file: DataFile) -> list[str] | None:
    """The columns that every record of the file has, where the file says so by itself (Parquet); else None.

    Raises:
        DataError: not a readable Parquet file.
    """
    if data_suffix(file.path) != ".parquet":
        return None
    with _parquet(file) as table:
        return list(table.schema_arrow.names)


_READERS: dict[str, Callable[[DataFile], Iterator[RawRecord]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": partial(_read_table, dialect="excel"),
    ".tsv": partial(_read_table, dialect="excel-tab"),
    ".txt": _read_text,
    ".md": _read_text,
    ".parquet": _read_parquet,
}
SUFFIXES = frozenset(_READERS) | {
    suffix + compression for suffix in _READERS if suffix != ".parquet" for compression in COMPRESSIONS
}
"""How names of readable files end."""
