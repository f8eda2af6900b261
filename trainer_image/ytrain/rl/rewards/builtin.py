"""The ready-made rewards, 1.0 or 0.0, written as a user writes one; `record` holds the settings of `rl.reward.builtin`,
and `expected`, the record's own answer. Runs in a reward process: imports nothing of ours.
"""

import json
import re
from typing import Any

_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?", re.ASCII
)


def exact(answer: str, record: dict[str, Any], **_: Any) -> bool:
    """The answer equals the expected one, white space at the ends aside."""
    return answer.strip() == str(record["expected"]).strip()


def regex(answer: str, record: dict[str, Any], **_: Any) -> bool:
    """The pattern is found in the answer."""
    return re.search(record["pattern"], answer) is not None


def numeric(answer: str, record: dict[str, Any], **_: Any) -> bool:
    """The last number of the answer is the last one of the expected answer, within the tolerance."""
    expected = last_number(record["expected"])
    if expected is None:
        raise ValueError("the record's answer has no number")
    found = last_number(answer)
    return found is not None and abs(found - expected) <= record["tolerance"]


def jsonSchema(answer: str, record: dict[str, Any], **_: Any) -> bool:
    """The whole answer is JSON that fits the schema. References to other documents are not fetched."""
    import jsonschema
    from referencing import Registry

    try:
        value = json.loads(answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    validator = jsonschema.Draft202012Validator(record["jsonSchema"], registry=Registry())
    return bool(validator.is_valid(value))


def length(record: dict[str, Any], **_: Any) -> bool:
    """The answer is at most maxTokens long."""
    return bool(record["answerTokens"] <= record["maxTokens"])


def last_number(text: str) -> float | None:
    """The last number of a text; commas may part thousands, a sign follows neither a letter nor a digit."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("\u2212", "-")) if found else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
