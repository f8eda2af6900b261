"""A file reads here as kubectl reads it: the same numbers, the same texts, and the line of each field."""

from typing import Any

import pytest
import yaml

from ytrain_api.yaml_file import read_documents, write_document

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5e-6", 5e-6),
        ("1E3", 1000),
        (".5", 0.5),
        ("3.0", 3),
        ("1_000", 1000),
        ("-7", -7),
        ("0x10", 16),
        ('"5e-6"', "5e-6"),
        ("'3'", "3"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("1.2.3", "1.2.3"),
        ("15m", "15m"),
        ("yes", True),
        ("~", None),
        ("99999999999999999999", 1e20),
    ],
)
def test_scalars(written: str, value: Any) -> None:
    (document,) = read_documents(f"field: {written}")
    assert document.value == {"field": value}
    assert type(document.value["field"]) is type(value)
    assert document.findings == []


@pytest.mark.parametrize(
    "text", ["5e-6", "1:30", "2026-01-01", "yes", "0x1F", "007", "~", "", " a", "é\x85", "a\nb: c\n"]
)
def test_texts_are_written_as_texts(text: str) -> None:
    (document,) = read_documents(write_document({"field": text}))
    assert document.value == {"field": text}


def test_lines_of_fields_in_several_documents() -> None:
    first, second = read_documents("a:\n  b: [1,\n    2]\n---\n\nc: 3\n---\n")
    assert first.lines[("a", "b", 1)] == 3
    assert second.lines[("c",)] == 6
    assert second.line(("c", "unwritten", 0)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "a: given twice, on lines 1 and 3; remove one"),
        ("a: !!timestamp 2026-01-01", "the YAML tag tag:yaml.org,2002:timestamp is not supported"),
        ("a: !mine x", "the YAML tag !mine is not supported"),
        ("a: !!int x", "not a value of the YAML type int"),
        ("a: &x [*x]", "an anchor that contains itself"),
        ("a: &x {<<: *x}", "an anchor that contains itself"),
        ("? [a]\n: 1", "the key on line 1 is not plain text"),
    ],
)
def test_faults(text: str, message: str) -> None:
    (document,) = read_documents(text)
    (finding,) = document.findings
    assert message in str(finding)


def test_anchors_and_merge_keys_work() -> None:
    (document,) = read_documents("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n")
    assert document.value["use"] == {"x": 1, "y": 3}
    assert document.findings == []


def test_what_is_not_yaml_raises() -> None:
    with pytest.raises(yaml.YAMLError):
        read_documents("a: [1")
