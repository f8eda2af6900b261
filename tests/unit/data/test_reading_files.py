"""Each file type gives its records with their lines; a bad line costs that line, a bad file says where it breaks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from struct import pack

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.data import reading
from ytrain.data.reading import DataFile, RawRecord, read_records
from ytrain.data.records import Text
from ytrain_api.errors import DataError

pytestmark = pytest.mark.unit


def _read(tmp_path: Path, name: str, content: str | bytes) -> list[tuple[int, object]]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(record.line, record.fault or record.value) for record in read_records(DataFile(path, name))]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n\n  \n{"a": 2}', [(1, {"a": 1}), (4, {"a": 2})]),
        ("a.JSONL", '\ufeff{"a": 1}\r\n', [(1, {"a": 1})]),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": \n{"a": 3}\n',
            [(1, {"a": 1}), (2, "Expecting value at column 6"), (3, {"a": 3})],
        ),
        ("a.jsonl", "[" * 100_000 + "\n1\n", [(1, "nested too deeply"), (2, 1)]),
        ("a.jsonl", '{"a": ' + "1" * 5000 + "}\n1\n", [(1, "a number with too many digits"), (2, 1)]),
        ("a.json", '[{"a": 1},\n {"a":\n 2}\n]\n', [(1, {"a": 1}), (2, {"a": 2})]),
        ("a.json", '[{"a": 1}, {"a": 2}, {"a": 3}]', [(1, {"a": 1}), (2, {"a": 2}), (3, {"a": 3})]),
        ("a.json", "[1, 2,\n3,\n\n\n4]", [(1, 1), (2, 2), (3, 3), (5, 4)]),
        ("a.json", "\n [ ]\n", []),
        ("a.json", '{\n"a": 1\n}', [(1, {"a": 1})]),
        ("a.json", '{"data": [{"a": 1}, {"a": 2}]}', [(1, {"a": 1}), (2, {"a": 2})]),
        ("a.json", '{"a": 1}\n{"a": 2}\n{\n', [(1, {"a": 1}), (2, {"a": 2}), (3, None)]),
        ("a.csv", 'q,a\n"x\ny",1\nz,2\n', [(2, {"q": "x\ny", "a": "1"}), (4, {"q": "z", "a": "2"})]),
        ("a.csv", "q,a\n\n1\n1,2\n", [(3, "1 fields where the header has 2"), (4, {"q": "1", "a": "2"})]),
        ("a.csv", 'q,a\n"x"y,1\n1,2\n', [(2, None), (3, {"q": "1", "a": "2"})]),
        ("a.tsv", "q\ta\n1, 2\t3\n", [(2, {"q": "1, 2", "a": "3"})]),
        ("a.txt", "one\n\ntwo\n", [(1, Text("one\n\ntwo\n"))]),
        ("a.md", "# one\n", [(1, Text("# one\n"))]),
        ("a.txt", "", [(1, Text(""))]),
        ("a.txt", "café".encode("utf-16"), [(1, "UTF-16, not UTF-8. Convert it, for example: iconv -f UTF-16")]),
        ("a.txt", b"one\ncaf\xe9", [(2, "not UTF-8: byte 0xe9 at offset 7 of the file. Convert it")]),
        ("a.md", b"\x7fELF\0\0", [(1, "binary, not text: it holds a zero byte. Remove it from the data.")]),
    ],
)
def test_records_and_their_lines(
    tmp_path: Path, name: str, content: str | bytes, expected: list[tuple[int, object]]
) -> None:
    records = _read(tmp_path, name, content)
    assert [line for line, _ in records] == [line for line, _ in expected]
    for (_, found), (_, wanted) in zip(records, expected, strict=True):
        assert found == wanted or (isinstance(found, str) and found.startswith(str(wanted or "")))


def test_a_parquet_file_counts_rows(tmp_path: Path) -> None:
    rows = [{"text": str(number), "messages": None} for number in range(600)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    records = list(read_records(DataFile(tmp_path / "a.parquet", "a.parquet")))
    assert records[599] == RawRecord(600, {"text": "599", "messages": None})


def test_a_nested_null_of_a_parquet_file_is_absent(tmp_path: Path) -> None:
    """A struct has one list of fields: each call would name the arguments of all functions."""
    calls = [[{"name": "f", "arguments": {"x": 1}}], [{"name": "g", "arguments": {"y": 2}}]]
    rows = [{"messages": [{"role": "assistant", "content": None, "tool_calls": call}]} for call in calls]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    records = read_records(DataFile(tmp_path / "a.parquet", "a.parquet"))
    assert [record.value["messages"] for record in records] == [
        [{"role": "assistant", "tool_calls": call}] for call in calls
    ]


def test_times_of_a_parquet_file_may_be_as_fine_as_pandas_writes_them(tmp_path: Path) -> None:
    turn = pa.struct([("content", pa.string()), ("at", pa.timestamp("ns", tz="UTC"))])
    table = pa.table(
        {
            "at": pa.array([1_500], pa.timestamp("ns")),
            "took": pa.array([1_500], pa.duration("ns")),
            "messages": pa.array([[{"content": "a", "at": 1_500}]], pa.list_(turn)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    [record] = read_records(DataFile(tmp_path / "a.parquet", "a.parquet"))
    assert record.value["took"] == timedelta(microseconds=1)
    assert record.value["at"] == datetime(1970, 1, 1, microsecond=1)
    assert record.value["messages"][0]["at"] == datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)


def test_a_row_that_python_cannot_hold_costs_that_row(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(pack("4i", 0, 1, 2, 3)), pa.py_buffer(b"a\xffb")])
    late = pa.array([0, 0, 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"text": texts, "at": late}), tmp_path / "a.parquet")
    records = list(read_records(DataFile(tmp_path / "a.parquet", "a.parquet")))
    assert [record.line for record in records] == [1, 2, 3]
    assert records[0].value["text"] == "a"
    assert "0xff" in str(records[1].fault)
    assert "out of range" in str(records[2].fault)


def test_a_long_text_comes_in_pieces_of_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "TEXT_BLOCK_CHARACTERS", 10)
    assert _read(tmp_path, "a.txt", "12345\n12345\nlast\n") == [
        (1, Text("12345\n12345\n", ends=False)),
        (3, Text("last\n", begins=False)),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": "caf\xe9"}\n',
            r"a.jsonl:2: the file is not UTF-8: byte 0xe9 at offset 19 of .*iconv",
        ),
        ("a.jsonl", "café".encode("utf-16"), r"a.jsonl:1: the file is UTF-16, not UTF-8.*iconv -f UTF-16"),
        ("a.csv", b"q,a\n\x80,1\n", r"a.csv:2: the file is not UTF-8: byte 0x80 at offset 4"),
        ("a.jsonl", b"\xef\xbb\xbf\xe9", r"a.jsonl:1: the file is not UTF-8: byte 0xe9 at offset 3 "),
        ("a.csv", b"q,q\n1,2\n", r"a.csv:1: the header names a column twice: q, q"),
        ("a.json", b'{"a": 1,\n}', r"a.json:2: broken JSON"),
        ("a.json", b'[{"a": 1},\n{"a" 2}]', r"a.json:2: broken JSON in an array: Expecting ':'"),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', r"a.json:2: broken JSON: expected ',' or ']', found '\{'"),
        ("a.json", b'[{"a": 1},\n', r"a.json:2: broken JSON in an array"),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}]', r"a.json:2: broken JSON: the array ends, and then comes '\['"),
        ("a.json", b"[]\n1", r"a.json:2: broken JSON: the array ends"),
        ("a.json", b"[1,\n" + b"[" * 100_000, r"a.json:2: broken JSON in an array: nested too deeply"),
        ("a.json", b"[1,\n" + b"1" * 5000 + b"]", r"a.json:2: broken JSON in an array: a number with too many digits"),
        ("a.json", b'{"a":\n' + b"[" * 100_000, r"a.json: broken JSON: nested too deeply"),
        ("a.parquet", b"PAR1 no", r"a.parquet: not a readable Parquet file"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, name, content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(VALUES, max_size=6), block=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]))
def test_a_streamed_array_is_the_array(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], block: int, indent: int | None
) -> None:
    import json

    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_text(json.dumps(values, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_JSON_BLOCK_CHARACTERS", block)
        records = list(read_records(DataFile(path, "array.json")))
    assert [record.value for record in records] == values
    assert len({record.line for record in records}) == len(values)
