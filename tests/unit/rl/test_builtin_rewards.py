"""Built-in rewards: what counts as right, and settings that cannot be used."""

from pathlib import Path
from typing import Any

import pytest
from job_rewards import opened, sample

from ytrain.rl.rewards import Failure
from ytrain.rl.rewards.builtin import last_number
from ytrain.rl.rewards.builtin_reward import expected_answer
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit

ANSWER_42 = {"question": "?", "answer": "6 * 7 is\n#### 42"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("reward", "record", "scores"),
    [
        ({"kind": "exact"}, {"prompt": "?", "completion": "four"}, {" four\n": 1, "Four": 0, "": 0}),
        ({"kind": "regex", "pattern": r"^\d+$"}, {}, {"12": 1, "1 2": 0}),
        ({"kind": "numeric"}, ANSWER_42, {"I say 41, no, 42.": 1, "42 or 43": 0, "none": 0, "": 0, "9" * 400: 0}),
        ({"kind": "numeric", "tolerance": 0.5}, ANSWER_42, {"42.5": 1, "42.6": 0}),
        (
            {"kind": "jsonSchema", "jsonSchema": SCHEMA},
            {},
            {'{"n": 1}': 1, ' {"n": 1}\n': 1, '{"n": "1"}': 0, "{n: 1}": 0, "NaN": 0, "[" * 100_000: 0},
        ),
    ],
)
def test_scores(reward: dict[str, Any], record: dict[str, Any], scores: dict[str, int], tmp_path: Path) -> None:
    with opened({"builtin": reward}, tmp_path) as service:
        found = service.score([sample(answer, record) for answer in scores])
    assert dict(zip(scores, found, strict=True)) == scores


def test_length_counts_tokens(tmp_path: Path) -> None:
    with opened({"builtin": {"kind": "length", "maxTokens": 3}}, tmp_path) as service:
        assert service.score([sample("a", tokens=3), sample("a", tokens=4)]) == [1.0, 0.0]


def test_a_record_without_what_is_compared_is_a_failure(tmp_path: Path) -> None:
    with opened({"builtin": {"kind": "numeric"}}, tmp_path) as service:
        no_answer, no_number, right = service.score(
            [sample("4", {"prompt": "2 + 2"}), sample("4", {"answer": "four"}), sample("4", {"answer": 4})]
        )
    assert isinstance(no_answer, Failure) and no_answer.reason == "numeric needs an answer in the record"
    assert isinstance(no_number, Failure) and "the record's answer has no number" in no_number.detail
    assert right == 1.0


def test_a_reference_to_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    with opened({"builtin": {"kind": "jsonSchema", "jsonSchema": schema}}, tmp_path) as service:
        (result,) = service.score([sample("{}")])
    assert isinstance(result, Failure) and "Unresolvable" in result.detail


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"kind": "regex", "pattern": "("}, r"spec.rl.reward.builtin.pattern: '\(' is no regular expression"),
        (
            {"kind": "jsonSchema", "jsonSchema": {"type": "number", "minimum": "x"}},
            "builtin.jsonSchema: no JSON Schema",
        ),
    ],
)
def test_settings_that_cannot_be_used(reward: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message), opened({"builtin": reward}, tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12), ("x = -3", -3), ("5-3", 3), ("1,234,567.5", 1234567.5), ("3,4", 4), ("12.", 12), (".5", 0.5),
        ("1e3", 1000), ("\u22127", -7), ("a5", None), ("no", None), ("$10", 10), ("12345,678", 678), ("#### 0042", 42),
    ],
)  # fmt: skip
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        ({"prompt": "?", "answer": 4}, "4"),
        ({"instruction": "?", "output": "o"}, "o"),
        ({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "m"}]}, "m"),
        ({"messages": [{"role": "user", "content": "?"}]}, None),
        ({"prompt": "?"}, None),
    ],
)
def test_the_records_own_answer(record: dict[str, Any], answer: str | None) -> None:
    assert expected_answer(record) == answer
