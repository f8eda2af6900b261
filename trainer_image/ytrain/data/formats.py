"""Brings a record to its normal form, one at a time, in the format that its keys tell.

A file may mix formats: nothing is concluded from its first record. What type the file has does not matter here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ytrain.data.keys import (
    MESSAGE_KEYS,
    PAIR_FORMATS,
    PAIRS,
    TEXT_KEYS,
    RecordKind,
    blank,
    detect,
    find_pair,
    missing,
    names,
    pair_keys,
    refuse_half_read,
)
from ytrain.data.records import Chat, Record, Text, Unusable
from ytrain.data.tools import calls, decoded, schemas

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
SYSTEM_KEYS = ("system", "system_prompt")
ADDITIONS = ("input", "context")
"""Texts that follow a prompt, each on a new line."""


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
        if blank(value.text):
            raise Unusable("empty text")
        return value
    if not isinstance(value, dict):
        raise Unusable("not an object with keys", f"found {type(value).__name__}")
    record = {key: entry for key, entry in value.items() if not missing(entry)}
    name = detect(record, kind) if format == "auto" else format
    if format == "auto" and name in PAIR_FORMATS:
        refuse_half_read(record, answered=kind != "prompt")
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
        detect(filled, kind)
    elif format == "text":
        _text(filled, True)


def _words(value: object, what: str) -> str:
    """Text of a field: text, a number, or a list of text parts as the OpenAI format has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and not missing(value):
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
        raise Unusable("no messages", f"keys {names(record)}")
    return _chat(record, _turns(record[key], key), answered)


def _turns(turns: object, key: str) -> list[dict[str, Any]]:
    turns = decoded(turns, key) if str(turns).lstrip().startswith("[") else turns
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Unusable("not a list of turns", key)
    return [_turn(turn, f"{key}[{index}]") for index, turn in enumerate(turns)]


def _turn(turn: Mapping[str, Any], where: str) -> dict[str, Any]:
    rest = {key: value for key, value in turn.items() if not missing(value)}
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
    if role == "assistant" and blank(text) and not rest.get("tool_calls"):
        raise Unusable("empty answer", where)
    if role == "user" and blank(text):
        raise Unusable("empty question", f"{where} has no content")
    return {"role": role, "content": text, **rest}


def _pair(format: str) -> Callable[[Mapping[str, Any], bool], Chat]:
    pairs = [pair for pair in PAIRS if pair.format == format]

    def parse(record: Mapping[str, Any], answered: bool) -> Chat:
        pair = find_pair(pairs, record, answered)
        if pair is None:
            raise Unusable(f"not {format}", f"keys {names(record)}; wanted: {'; '.join(pair_keys(pairs))}")
        key = pair.answer_key(record)
        empty = key is None or (not answered and blank(record[key]))
        answer = [] if empty or key is None else _completion(record[key], key)
        if isinstance(record[pair.prompt], list):  # TRL's conversational prompt-completion
            return _chat(record, [*_turns(record[pair.prompt], pair.prompt), *answer], answered)
        keys = (pair.prompt, *(key for key in ADDITIONS if key != pair.prompt and key in record))
        parts = [_words(record[key], key) for key in keys if not blank(record[key])]
        if not parts:
            raise Unusable("empty prompt", pair.prompt)
        return _chat(record, [*_history(record), {"role": "user", "content": "\n".join(parts)}, *answer], answered)

    return parse


def _completion(value: object, key: str) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return _turns(value, key)
    answer = _words(value, key)
    if blank(answer):
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
    own = next((_words(record[key], key) for key in SYSTEM_KEYS if not blank(record.get(key, ""))), None)
    if own is not None and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": own}, *messages)
    return Chat(messages, schemas(record.get("tools", record.get("functions"))))


def _text(record: Mapping[str, Any], _: bool) -> Text:
    key = next((key for key in TEXT_KEYS if key in record), None)
    if key is None:
        raise Unusable("no text", f"keys {names(record)}")
    text = _words(record[key], key)
    if blank(text):
        raise Unusable("empty text", key)
    return Text(text)


FORMATS: dict[str, Callable[[Mapping[str, Any], bool], Record]] = {
    "messages": _messages,
    **{name: _pair(name) for name in PAIR_FORMATS},
    "history": lambda record, answered: _chat(record, _history(record), answered),
    "text": _text,
}
"""The values of a data source's `format` besides `auto`; each reads a record, which must be answered or need not."""
