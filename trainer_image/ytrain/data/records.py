"""The normal form of a record, which every file format and every key convention is brought to: a chat or a text.

Who finds that a record cannot be trained on raises `Unusable`; the record is then counted, the run goes on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Where a turn, or a record, keeps what the assistant thought before it answered."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation of which the assistant's turns are learned; without any, a prompt to be answered."""

    messages: tuple[Message, ...]
    """`role` (system, user, assistant, tool) and `content`, and whatever else the record's turn carries
    (`tool_calls`, `tool_call_id`, `reasoning_content` ...), as a chat template expects it. An assistant's turn of
    `weight` 0 is not learned."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""


@dataclass(frozen=True, slots=True)
class Text:
    """A plain text of which every token is learned."""

    text: str
    begins: bool = True
    """False for a piece of a long text that goes on from the record before."""
    ends: bool = True
    """False for a piece of a long text that goes on in the next record: no end-of-sequence token follows it."""

    def pieces(self, size: int) -> Iterator["Text"]:
        """The text in pieces of at most `size` characters, cut behind a line, else behind a word, else anywhere."""
        first = 0
        while first < len(self.text):
            end = first + size
            if end < len(self.text):
                cuts = (self.text.rfind(mark, first, end) + 1 for mark in ("\n", " "))
                end = next((cut for cut in cuts if cut > first), end)
            begins, ends = self.begins and first == 0, self.ends and end >= len(self.text)
            yield Text(self.text[first:end], begins=begins, ends=ends)
            first = end


Record = Chat | Text


@dataclass(frozen=True, slots=True)
class Rendered:
    """A chat as the text that the model sees, and the spans of it that are learned."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """[start, end) in characters, ascending, not overlapping, not empty."""


class Unusable(Exception):
    """One record cannot be trained on.

    Args:
        reason: what is wrong, in words shared by all records with this fault; the report counts by it.
        detail: what is particular to this record.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
