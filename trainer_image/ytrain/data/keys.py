"""Tells which format a record has by its keys, and refuses one of which a part would be left out in silence."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ytrain.data.records import REASONING_KEYS, Unusable

RecordKind = Literal["chat", "prompt", "text", "any"]
"""What a method trains on; a prompt is a chat that need not be answered. An explicit `format` overrules the others: it
is the user's word."""

MESSAGE_KEYS = ("messages", "conversations", "conversation")
TEXT_KEYS = ("text", "output")
CHOICE_KEYS = ("choices", "options")


@dataclass(frozen=True)
class Pair:
    """The keys of a question and of its answer."""

    format: str
    prompt: str
    answers: tuple[str, ...]

    def answer_key(self, record: Mapping[str, Any]) -> str | None:
        """The first of the keys of answers that says something, else the first that is there."""
        present = [key for key in self.answers if key in record]
        return next((key for key in present if not blank(record[key])), next(iter(present), None))

    def filled(self, record: Mapping[str, Any]) -> bool:
        key = self.answer_key(record)
        return key is not None and not blank(record.get(self.prompt, "")) and not blank(record[key])


PAIRS = (
    Pair("alpaca", "instruction", ("output", "response")),
    Pair("alpaca", "input", ("output",)),
    Pair("promptResponse", "prompt", ("response", "completion", "output")),
    Pair("promptResponse", "query", ("response",)),
    Pair("promptResponse", "inputs", ("targets",)),
    Pair("questionAnswer", "question", ("answer", "response")),
    Pair("questionAnswer", "problem", ("solution",)),
)
"""In the order in which they are looked for."""
PAIR_FORMATS = tuple(dict.fromkeys(pair.format for pair in PAIRS))


def detect(record: Mapping[str, Any], kind: RecordKind) -> str:
    """The record's format, one of `FORMATS`.

    Raises:
        Unusable: it has none that is known, or one that this kind does not train on.
    """
    chat = _detect_chat(record, answered=kind != "prompt")
    text = _text_key(record)
    if kind == "text" and text is not None:
        return "text"
    if chat is not None:
        if kind == "text":
            raise Unusable(
                "a chat among plain texts", f"keys {names(record)}; train chats with sft, or set the source's format"
            )
        return chat
    if text is not None:
        if kind in ("chat", "prompt"):
            raise Unusable("plain text among chats", f"keys {names(record)}; set format: text to learn it as it is")
        return "text"
    if "chosen" in record:
        raise Unusable(
            "a preference pair",
            f"keys {names(record)}; answers are learned, not preferences: bring the chosen one into a known format",
        )
    raise Unusable("no known format", f"keys {names(record)}; rename them to: {_wanted(kind)}")


def _detect_chat(record: Mapping[str, Any], *, answered: bool) -> str | None:
    if any(key in record for key in MESSAGE_KEYS):
        return "messages"
    pair = find_pair(PAIRS, record, answered)
    if pair is not None and (pair.filled(record) or _text_key(record) != "output"):
        return pair.format
    return "history" if "history" in record else None


def find_pair(pairs: Iterable[Pair], record: Mapping[str, Any], answered: bool) -> Pair | None:
    """The pair that the record has; of several, one that is filled.

    A CSV with the columns of two formats fills only one of them in each row.
    """
    present = [pair for pair in pairs if pair.prompt in record and pair.answer_key(record) is not None]
    asked = () if answered else (pair for pair in pairs if not blank(record.get(pair.prompt, "")))
    return next((pair for pair in present if pair.filled(record)), next(iter(present), next(iter(asked), None)))


def refuse_half_read(record: Mapping[str, Any], *, answered: bool) -> None:
    """Refuses a record of which a part that decides the answer would be left out in silence.

    Raises:
        Unusable: a format that is given says that this is meant.
    """
    if choices := _first_filled(record, CHOICE_KEYS):
        raise Unusable(
            "multiple choice",
            f"{choices} would not be seen; write the choices into the question and the answer in words, or set the"
            " source's format to leave them out",
        )
    if not answered:
        return
    filled = [pair for pair in PAIRS if pair.filled(record)]
    answers = dict.fromkeys(key for pair in filled for key in pair.answers if not blank(record.get(key, "")))
    if len(answers) > 1:
        raise Unusable(
            "more than one answer",
            f"keys {', '.join(answers)}; remove all but the one to be learned, or set the source's format",
        )
    if reasoning := _first_filled(record, REASONING_KEYS):
        raise Unusable(
            "reasoning beside the answer",
            f"{reasoning} would not be learned; write it into the answer in the model's own form, or into a turn's"
            " reasoning_content, or set the source's format to leave it out",
        )
    if record.get("label") is False:
        raise Unusable("an answer marked as bad", "label is false; remove such records, or set the source's format")


def _first_filled(record: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((key for key in keys if not blank(record.get(key, ""))), None)


def _text_key(record: Mapping[str, Any]) -> str | None:
    if "text" in record:
        return "text"
    bare = "output" in record and all(blank(record.get(pair.prompt, "")) for pair in PAIRS)
    return "output" if bare and not blank(record["output"]) else None


def _wanted(kind: RecordKind) -> str:
    """The keys of the known formats, a semicolon between two formats."""
    text = " or ".join(TEXT_KEYS)
    if kind == "text":
        return text
    texts = (text,) if kind == "any" else ()
    return "; ".join((" or ".join(MESSAGE_KEYS[:2]), *pair_keys(PAIRS), "history", *texts))


def pair_keys(pairs: Iterable[Pair]) -> list[str]:
    return [f"{pair.prompt} and {' or '.join(pair.answers)}" for pair in pairs]


def names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(str, record)) or "(none)"


def missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def blank(value: object) -> bool:
    return value in ("", [], {}) or (isinstance(value, str) and not value.strip())
