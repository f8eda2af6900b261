"""Recognises a record's format by its keys and brings it to the normal form, one record at a time.

A file may mix formats: nothing is concluded from its first record. What type the file has does not matter here.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ytrain.data.records import REASONING_KEYS, Chat, Record, Text, Unusable
from ytrain.data.tools import calls, decoded, schemas

RecordKind = Literal["chat", "prompt", "text", "any"]
"""What a method trains on; a prompt is a chat that need not be answered. An explicit `format` overrules the others: it
is the user's word."""

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "function_call": "assistant",
}
MESSAGE_KEYS = ("messages", "conversations", "conversation")
SYSTEM_KEYS = ("system", "system_prompt")
TEXT_KEYS = ("text", "output")


ADDITIONS = ("input", "context")
"""Texts that follow a prompt, each on a new line."""
CHOICE_KEYS = ("choices", "options")


@dataclass(frozen=True)
class _Pair:
    """The keys of a question and of its answer."""

    format: str
    prompt: str
    answers: tuple[str, ...]

    def answer_key(self, record: Mapping[str, Any]) -> str | None:
        """The first of the keys of answers that says something, else the first that is there."""
        present = [key for key in self.answers if key in record]
        return next((key for key in present if not _blank(record[key])), next(iter(present), None))

    def filled(self, record: Mapping[str, Any]) -> bool:
        key = self.answer_key(record)
        return key is not None and not _blank(record.get(self.prompt, "")) and not _blank(record[key])


_PAIRS = (
    _Pair("alpaca", "instruction", ("output", "response")),
    _Pair("alpaca", "input", ("output",)),
    _Pair("promptResponse", "prompt", ("response", "completion", "output")),
    _Pair("promptResponse", "query", ("response",)),
    _Pair("promptResponse", "inputs", ("targets",)),
    _Pair("questionAnswer", "question", ("answer", "response")),
    _Pair("questionAnswer", "problem", ("solution",)),
)
"""In the order in which they are looked for."""
_PAIR_FORMATS = ("alpaca", "promptResponse", "questionAnswer")


def normalise(
    value: object, *, kind: RecordKind = "any", format: str = "auto", system_prompt: str | None = None
) -> Record:
    """Brings one decoded record to its normal form.

    Args:
        value: the record as JSON, CSV or Parquet gave it, or a `Text` from a text file. A key with a null value counts
            as absent, because columnar files give every record every key; so does NaN, which pandas writes for it.
        kind: what may be trained on. Plain text among chats, and a chat among plain texts, are unusable; so is a chat
            without an answer, unless it is to be a prompt.
        format: `auto`, or one of `FORMATS` to read every record in that way.
        system_prompt: given to a chat that carries no system text of its own.

    Raises:
        Unusable: with the reason.
    """
    if isinstance(value, Text):
        if kind in ("chat", "prompt") and format == "auto":
            raise Unusable("plain text among chats", "a text file; set format: text to learn it as it is")
        if _blank(value.text):
            raise Unusable("empty text")
        return value
    if not isinstance(value, dict):
        raise Unusable("not an object with keys", f"found {type(value).__name__}")
    record = {key: entry for key, entry in value.items() if not _missing(entry)}
    name = _detect(record, kind) if format == "auto" else format
    if format == "auto" and name in _PAIR_FORMATS:
        _refuse_half_read(record, answered=kind != "prompt")
    parsed = FORMATS[name](record, kind != "prompt")
    if isinstance(parsed, Text):
        return parsed
    system = system_prompt if system_prompt and not any(m["role"] == "system" for m in parsed.messages) else None
    if system is not None:
        return Chat(({"role": "system", "content": system}, *parsed.messages), parsed.tools)
    return parsed


def recognise(keys: Iterable[str], kind: RecordKind, format: str) -> None:
    """Whether records with these keys can be used, all of them filled.

    Raises:
        Unusable: they cannot. Of chats in a format that was given, only their values tell.
    """
    filled = dict.fromkeys(keys, "filled")
    if format == "auto":
        _detect(filled, kind)
    elif format == "text":
        _text(filled, True)


def _detect(record: Mapping[str, Any], kind: RecordKind) -> str:
    chat = _detect_chat(record, answered=kind != "prompt")
    text = _text_key(record)
    if kind == "text" and text is not None:
        return "text"
    if chat is not None:
        if kind == "text":
            raise Unusable(
                "a chat among plain texts", f"keys {_names(record)}; train chats with sft, or set the source's format"
            )
        return chat
    if text is not None:
        if kind in ("chat", "prompt"):
            raise Unusable("plain text among chats", f"keys {_names(record)}; set format: text to learn it as it is")
        return "text"
    if "chosen" in record:
        raise Unusable(
            "a preference pair",
            f"keys {_names(record)}; answers are learned, not preferences: bring the chosen one into a known format",
        )
    raise Unusable("no known format", f"keys {_names(record)}; rename them to: {_wanted(kind)}")


def _detect_chat(record: Mapping[str, Any], *, answered: bool) -> str | None:
    if any(key in record for key in MESSAGE_KEYS):
        return "messages"
    pair = _find_pair(_PAIRS, record, answered)
    if pair is not None and (pair.filled(record) or _text_key(record) != "output"):
        return pair.format
    return "history" if "history" in record else None


def _find_pair(pairs: Iterable[_Pair], record: Mapping[str, Any], answered: bool) -> _Pair | None:
    """The pair that the record has; of several, one that is filled.

    A CSV with the columns of two formats fills only one of them in each row.
    """
    present = [pair for pair in pairs if pair.prompt in record and pair.answer_key(record) is not None]
    asked = () if answered else (pair for pair in pairs if not _blank(record.get(pair.prompt, "")))
    return next((pair for pair in present if pair.filled(record)), next(iter(present), next(iter(asked), None)))


def _refuse_half_read(record: Mapping[str, Any], *, answered: bool) -> None:
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
    filled = [pair for pair in _PAIRS if pair.filled(record)]
    answers = dict.fromkeys(key for pair in filled for key in pair.answers if not _blank(record.get(key, "")))
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
    return next((key for key in keys if not _blank(record.get(key, ""))), None)


def _text_key(record: Mapping[str, Any]) -> str | None:
    if "text" in record:
        return "text"
    bare = "output" in record and all(_blank(record.get(pair.prompt, "")) for pair in _PAIRS)
    return "output" if bare and not _blank(record["output"]) else None


def _wanted(kind: RecordKind) -> str:
    """The keys of the known formats, a semicolon between two formats."""
    text = " or ".join(TEXT_KEYS)
    if kind == "text":
        return text
    texts = (text,) if kind == "any" else ()
    return "; ".join((" or ".join(MESSAGE_KEYS[:2]), *_pair_keys(_PAIRS), "history", *texts))


def _pair_keys(pairs: Iterable[_Pair]) -> list[str]:
    return [f"{pair.prompt} and {' or '.join(pair.answers)}" for pair in pairs]


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(str, record)) or "(none)"


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _blank(value: object) -> bool:
    return value in ("", [], {}) or (isinstance(value, str) and not value.strip())


def _words(value: object, what: str) -> str:
    """Text of a field: text, a number, or a list of text parts as the OpenAI format has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and not _missing(value):
        return str(value)
    found = type(value).__name__
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        other = next((part for part in value if part.get("type") != "text"), None)
        if other is None:
            return "".join(_words(part.get("text"), what) for part in value)
        found = f"a list with a part of type {other.get('type')!r}, and only text is learned"
    raise Unusable("not text", f"{what} is {found}")


def _messages(record: Mapping[str, Any], answered: bool) -> Chat:
    key = next((key for key in MESSAGE_KEYS if key in record), None)
    if key is None:
        raise Unusable("no messages", f"keys {_names(record)}")
    return _chat(record, _turns(record[key], key), answered)


def _turns(turns: object, key: str) -> list[dict[str, Any]]:
    turns = decoded(turns, key) if str(turns).lstrip().startswith("[") else turns
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Unusable("not a list of turns", key)
    return [_turn(turn, f"{key}[{index}]") for index, turn in enumerate(turns)]


def _turn(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    rest = {key: value for key, value in turn.items() if not _missing(value)}
    named, spoken = rest.pop("role", None), rest.pop("from", None)
    named = spoken if named is None else named
    role = ROLES.get(named.lower()) if isinstance(named, str) else None
    if role is None:
        raise Unusable("unknown role", f"{where} has role {named!r}; known: {', '.join(ROLES)}")
    content, value = rest.pop("content", None), rest.pop("value", None)
    content = value if content is None else content
    legacy = rest.pop("function_call", content if named == "function_call" else None)
    text = "" if content is None or content is legacy else _words(content, f"the content of {where}")
    if legacy is not None:
        rest["tool_calls"] = legacy
    if "tool_calls" in rest:
        rest["tool_calls"] = calls(rest["tool_calls"], where)
    if rest.get("weight", 1) not in (0, 1):
        raise Unusable("a weight other than 0 and 1", f"{where} has weight {rest['weight']!r}")
    if role == "assistant" and _blank(text) and not rest.get("tool_calls"):
        raise Unusable("empty answer", where)
    if role == "user" and _blank(text):
        raise Unusable("empty question", f"{where} has no content")
    return {"role": role, "content": text, **rest}


def _pair(format: str) -> Callable[[Mapping[str, Any], bool], Chat]:
    pairs = [pair for pair in _PAIRS if pair.format == format]

    def parse(record: Mapping[str, Any], answered: bool) -> Chat:
        pair = _find_pair(pairs, record, answered)
        if pair is None:
            raise Unusable(f"not {format}", f"keys {_names(record)}; wanted: {'; '.join(_pair_keys(pairs))}")
        key = pair.answer_key(record)
        empty = key is None or (not answered and _blank(record[key]))
        answer = [] if empty or key is None else _completion(record[key], key)
        if isinstance(record[pair.prompt], list):  # TRL's conversational prompt-completion
            return _chat(record, [*_turns(record[pair.prompt], pair.prompt), *answer], answered)
        keys = (pair.prompt, *(key for key in ADDITIONS if key != pair.prompt and key in record))
        parts = [_words(record[key], key) for key in keys if not _blank(record[key])]
        if not parts:
            raise Unusable("empty prompt", pair.prompt)
        return _chat(record, [*_history(record), {"role": "user", "content": "\n".join(parts)}, *answer], answered)

    return parse


def _completion(value: object, key: str) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return _turns(value, key)
    answer = _words(value, key)
    if _blank(answer):
        raise Unusable("empty answer", key)
    return [{"role": "assistant", "content": answer}]


def _history(record: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    history = record.get("history", [])
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Unusable("history is not a list of [question, answer] pairs")
    for index, (question, answer) in enumerate(history):
        yield {"role": "user", "content": _words(question, f"history[{index}]")}
        yield from _completion(answer, f"history[{index}]")


def _chat(record: Mapping[str, Any], turns: Iterable[dict[str, Any]], answered: bool) -> Chat:
    messages = tuple(turns)
    if answered and not any(message["role"] == "assistant" for message in messages):
        raise Unusable("no assistant turn")
    if not any(message["role"] != "system" for message in messages):
        raise Unusable("nothing is asked")
    own = next((_words(record[key], key) for key in SYSTEM_KEYS if not _blank(record.get(key, ""))), None)
    if own is not None and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": own}, *messages)
    return Chat(messages, schemas(record.get("tools", record.get("functions"))))


def _text(record: Mapping[str, Any], _: bool) -> Text:
    key = next((key for key in TEXT_KEYS if key in record), None)
    if key is None:
        raise Unusable("no text", f"keys {_names(record)}")
    text = _words(record[key], key)
    if _blank(text):
        raise Unusable("empty text", key)
    return Text(text)


FORMATS: dict[str, Callable[[Mapping[str, Any], bool], Record]] = {
    "messages": _messages,
    **{name: _pair(name) for name in _PAIR_FORMATS},
    "history": lambda record, answered: _chat(record, _history(record), answered),
    "text": _text,
}
"""The values of a data source's `format` besides `auto`; each reads a record, which must be answered or need not."""
