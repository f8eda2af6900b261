"""Recognises a record's format by its keys and brings it to the normal form, one record at a time.

A file may mix formats: nothing is concluded from its first record. What type the file has does not matter here.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ytrain.data.records import Chat, Record, Text, Unusable

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
}
MESSAGE_KEYS = ("messages", "conversations", "conversation")
SYSTEM_KEYS = ("system", "system_prompt")
TEXT_KEYS = ("text", "output")


@dataclass(frozen=True)
class _Pair:
    """A format with the question under one key and the answer under another."""

    prompt: str
    answers: tuple[str, ...]
    addition: str | None = None
    """Key of a text that follows the prompt on a new line."""

    def answer_key(self, record: Mapping[str, Any]) -> str | None:
        return next((key for key in self.answers if key in record), None) if self.prompt in record else None


_PAIRS = {
    "alpaca": _Pair("instruction", ("output",), addition="input"),
    "promptResponse": _Pair("prompt", ("response", "completion")),
    "questionAnswer": _Pair("question", ("answer",)),
}


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
    raise Unusable("no known format", f"keys {_names(record)}; wanted: {_wanted(kind)}")


def _detect_chat(record: Mapping[str, Any], *, answered: bool) -> str | None:
    if any(key in record for key in MESSAGE_KEYS):
        return "messages"
    matches = [(name, pair, pair.answer_key(record)) for name, pair in _PAIRS.items()]
    present = [(name, pair, key) for name, pair, key in matches if key is not None]
    # A CSV with the columns of two formats fills only one of them in each row.
    filled = [name for name, pair, key in present if not _blank(record[pair.prompt]) and not _blank(record[key])]
    if filled:
        return filled[0]
    if present and not (present[0][0] == "alpaca" and _text_key(record) == "output"):
        return present[0][0]
    if not answered:
        asked = next((name for name, pair in _PAIRS.items() if not _blank(record.get(pair.prompt, ""))), None)
        if asked is not None:
            return asked
    return "history" if "history" in record else None


def _text_key(record: Mapping[str, Any]) -> str | None:
    if "text" in record:
        return "text"
    bare = "output" in record and all(_blank(record.get(key, "")) for key in ("instruction", "input"))
    return "output" if bare and not _blank(record["output"]) else None


def _wanted(kind: RecordKind) -> str:
    """The keys of the known formats, a semicolon between two formats."""
    text = " or ".join(TEXT_KEYS)
    if kind == "text":
        return text
    pairs = (f"{pair.prompt} and {' or '.join(pair.answers)}" for pair in _PAIRS.values())
    return "; ".join((" or ".join(MESSAGE_KEYS[:2]), *pairs, "history", *([text] if kind == "any" else ())))


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
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(_words(part.get("text"), what) for part in value)
    raise Unusable("not text", f"{what} is {type(value).__name__}")


def _messages(record: Mapping[str, Any], answered: bool) -> Chat:
    key = next((key for key in MESSAGE_KEYS if key in record), None)
    if key is None:
        raise Unusable("no messages", f"keys {_names(record)}")
    return _chat(record, _turns(record[key], key), answered)


def _turns(turns: object, key: str) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Unusable("not a list of turns", key)
    return [_turn(turn, f"{key}[{index}]") for index, turn in enumerate(turns)]


def _turn(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    named = turn.get("role", turn.get("from"))
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise Unusable("unknown role", f"{where} has role {named!r}; known: {', '.join(ROLES)}")
    content = turn.get("content", turn.get("value"))
    rest = {k: v for k, v in turn.items() if k not in ("role", "from", "content", "value") and not _missing(v)}
    text = "" if _missing(content) else _words(content, f"the content of {where}")
    if role == "assistant" and _blank(text) and not rest.get("tool_calls"):
        raise Unusable("empty answer", where)
    return {"role": role, "content": text, **rest}


def _pair(pair: _Pair) -> Callable[[Mapping[str, Any], bool], Chat]:
    def parse(record: Mapping[str, Any], answered: bool) -> Chat:
        key = pair.answer_key(record)
        if answered and key is None:
            raise Unusable(f"no {pair.prompt} or no {' or '.join(pair.answers)}", f"keys {_names(record)}")
        if pair.prompt not in record:
            raise Unusable(f"no {pair.prompt}", f"keys {_names(record)}")
        empty = key is None or (not answered and _blank(record[key]))
        answer = [] if empty or key is None else _completion(record[key], key)
        if isinstance(record[pair.prompt], list):  # TRL's conversational prompt-completion
            return _chat(record, [*_turns(record[pair.prompt], pair.prompt), *answer], answered)
        parts = [_words(record[pair.prompt], pair.prompt)]
        if pair.addition is not None and pair.addition in record:
            parts.append(_words(record[pair.addition], pair.addition))
        prompt = "\n".join(part for part in parts if not _blank(part))
        if not prompt:
            raise Unusable("empty prompt", pair.prompt)
        return _chat(record, [*_history(record), {"role": "user", "content": prompt}, *answer], answered)

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
    tools = record.get("tools", [])
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Unusable("tools is not a list of function schemas")
    return Chat(messages, tuple(tools))


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
    **{name: _pair(pair) for name, pair in _PAIRS.items()},
    "history": lambda record, answered: _chat(record, _history(record), answered),
    "text": _text,
}
"""The values of a data source's `format` besides `auto`; each reads a record, which must be answered or need not."""
