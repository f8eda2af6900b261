"""Turns the records of a source into samples: parse, render, encode in batches, cut to length, count what is lost.

Streams from end to end. What it produces is stored by cache.py and read by dataset.py.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from tokenizers import Tokenizer

from ytrain.data.accounting import DataReport
from ytrain.data.chat import ChatRenderer, Supervise
from ytrain.data.dataset import Sample
from ytrain.data.encoding import Encoder, Mask, Tokens
from ytrain.data.formats import normalise
from ytrain.data.keys import RecordKind
from ytrain.data.overlong import Overlong, fit, split_context
from ytrain.data.reading import TEXT_BLOCK_CHARACTERS, RawRecord
from ytrain.data.records import Record, Rendered, Text, Unusable
from ytrain.data.workers import Submit
from ytrain_api.errors import SpecError

if TYPE_CHECKING:
    # Not wanted in the processes that encode texts: it takes seconds and much memory to import.
    from transformers import PreTrainedTokenizerBase

_BATCH_CHARACTERS = 1 << 19
"""Texts encoded in one call: enough work for every core, few enough that memory stays flat."""


@dataclass(frozen=True)
class TokenSettings:
    """What, besides the data and the tokenizer, decides which tokens a record becomes."""

    max_tokens: int
    """Longest sample, in tokens; at least 2."""
    kind: RecordKind = "any"
    """What may be trained on where a source's format is `auto`: chat, prompt, text or any."""
    overlong: Overlong = "skip"
    """What becomes of a longer record."""
    supervise: Supervise = "allAssistantTurns"
    """Which turns of a chat are learned."""
    system_prompt: str | None = None
    """For chats that carry no system text."""
    chat_template: str | None = None
    """Jinja text in place of the tokenizer's template."""
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    """Variables for the template."""
    vocabulary: int | None = None
    """Tokens that the model has; the tokenizer may know more. Absent: all of the tokenizer's."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A record whose text, or whose rendered turns, are to be encoded."""

    source: str
    line: int
    record: Text | list[Rendered]

    @property
    def characters(self) -> int:
        texts = [self.record] if isinstance(self.record, Text) else self.record
        return sum(len(text.text) for text in texts)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The tokens that begin and end a plain text: the beginning only where the tokenizer itself adds it."""

    beginning: Tokens
    end: Tokens


class Tokeniser:
    """Tokenises the records of one source.

    Args:
        format: how to read each record: `auto`, or one of `formats.FORMATS`.
        submit: encodes plain texts.
        ahead: how many batches of them may be under way.
        report: is counted up.
        log: gets a JSON line for each record left out.

    Raises:
        SpecError: the tokenizer has no fast version, or none of what the data need.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        settings: TokenSettings,
        format: str,
        submit: Submit,
        ahead: int,
        report: DataReport,
        log: TextIO,
    ) -> None:
        self._format = format
        self._submit = submit
        self._ahead = ahead
        self._report = report
        self._log = log
        self._settings = settings
        self._tokenizer = tokenizer
        # Made when first needed: a base model has no template, and a chat needs no end-of-sequence token.
        self._renderer: ChatRenderer | None = None
        self._encoder: Encoder | None = None
        self._frame: _Frame | None = None

    def samples(self, records: Iterable[tuple[str, RawRecord]]) -> Iterator[Sample]:
        """The samples of records, each with its file as messages call it, in their order."""
        under_way: deque[tuple[list[_Pending], Callable[[], list[Tokens]]]] = deque()
        last = np.empty(0, np.int32)  # the token before a text's next piece
        for batch in self._batches(records):
            texts = [pending.record.text for pending in batch if isinstance(pending.record, Text)]
            under_way.append((batch, self._submit(texts) if texts else list))
            if len(under_way) >= self._ahead:
                last = yield from self._finish(*under_way.popleft(), last)
        while under_way:
            last = yield from self._finish(*under_way.popleft(), last)

    def _batches(self, records: Iterable[tuple[str, RawRecord]]) -> Iterator[list[_Pending]]:
        """Records in batches of about the same work, whatever the sizes of their files."""
        pending: list[_Pending] = []
        characters = 0
        for source, raw in records:
            self._report.read += not isinstance(raw.value, Text) or raw.value.begins
            try:
                prepared = self._prepared(raw)
            except Unusable as fault:
                self._report.bad += 1
                self._report.skip(source, raw.line, fault.reason, fault.detail, self._log)
                continue
            parts: Iterable[Text | list[Rendered]] = [prepared]
            if isinstance(prepared, Text) and self._settings.overlong == "split":
                parts = prepared.pieces(TEXT_BLOCK_CHARACTERS)  # a book at once would take a hundred times its size
            for record in parts:
                pending.append(_Pending(source, raw.line, record))
                characters += pending[-1].characters
                if characters >= _BATCH_CHARACTERS:
                    yield pending
                    pending, characters = [], 0
        if pending:
            yield pending

    def _prepared(self, raw: RawRecord) -> Text | list[Rendered]:
        if raw.fault is not None:
            raise Unusable("cannot be decoded", raw.fault)
        settings = self._settings
        record: Record = normalise(
            raw.value, kind=settings.kind, format=self._format, system_prompt=settings.system_prompt
        )
        if isinstance(record, Text):
            _check_characters(record.text)
            return record
        if self._renderer is None:
            self._renderer = ChatRenderer(self._tokenizer, settings.chat_template, settings.chat_template_args)
        if settings.kind == "prompt" and record.messages[-1]["role"] != "assistant":
            rendered = [Rendered(self._renderer.prompt(record), ())]
        else:
            rendered = self._renderer.render(record, settings.supervise)
        for text in rendered:
            _check_characters(text.text)
        return rendered

    def _finish(
        self, batch: list[_Pending], tokens: Callable[[], list[Tokens]], last: Tokens
    ) -> Generator[Sample, None, Tokens]:
        """The samples of a batch; returns the last token of its last text."""
        texts = iter(tokens())
        chats = iter(self._encode([text for p in batch if not isinstance(p.record, Text) for text in p.record]))
        for pending in batch:
            if isinstance(pending.record, Text):
                ids = next(texts)
                sequences = [self._framed(pending.record, ids, last)]
                last = ids[-1:]
            else:
                sequences = [next(chats) for _ in pending.record]
            for ids, mask in self._fit(pending, sequences):
                self._report.samples += 1
                self._report.tokens += len(ids)
                self._report.supervised_tokens += int(np.count_nonzero(mask))
                yield Sample(ids, mask, pending.source, pending.line)
        return last

    def _framed(self, text: Text, ids: Tokens, last: Tokens) -> tuple[Tokens, Mask]:
        """A text with its beginning and end, all of it learned but the first token; a piece follows the one before."""
        if self._frame is None:
            self._frame = _frame(self._tokenizer)
        before = self._frame.beginning if text.begins else last
        framed = np.concatenate([before, ids, self._frame.end] if text.ends else [before, ids])
        mask = np.ones(len(framed), dtype=np.bool_)
        mask[:1] = False
        if not text.begins:  # counted with the piece before
            self._report.encoded_tokens -= len(last)
            self._report.context_tokens -= len(last)
        return framed, mask

    def _encode(self, chats: list[Rendered]) -> list[tuple[Tokens, Mask]]:
        if not chats:
            return []
        if self._encoder is None:
            self._encoder = Encoder(vocabulary(self._tokenizer))
        return self._encoder.encode(chats)

    def _fit(self, record: _Pending, sequences: list[tuple[Tokens, Mask]]) -> list[tuple[Tokens, Mask]]:
        """Cuts the sequences of one record to length and counts the record and its tokens."""
        report, limit, policy = self._report, self._settings.max_tokens, self._settings.overlong
        learnable = [(ids, mask) for ids, mask in sequences if mask.any() or self._settings.kind == "prompt"]
        if not learnable:
            report.bad += 1
            report.skip(record.source, record.line, "no token to learn", "", self._log)
            return []
        largest = max(int(ids.max()) for ids, _ in learnable)
        if self._settings.vocabulary is not None and largest >= self._settings.vocabulary:
            token = self._tokenizer.convert_ids_to_tokens(largest)
            detail = f"{token!r} (id {largest}); its vocabulary has {self._settings.vocabulary} tokens"
            report.bad += 1
            report.skip(record.source, record.line, "a token that the model does not have", detail, self._log)
            return []
        context = split_context(limit, chat=not isinstance(record.record, Text))
        fitted = [piece for ids, mask in learnable for piece in fit(ids, mask, limit, policy, context)]
        encoded = sum(len(ids) for ids, _ in learnable)
        labels, kept = (sum(int(np.count_nonzero(mask)) for _, mask in part) for part in (learnable, fitted))
        report.encoded_tokens += encoded
        report.context_tokens += encoded - labels
        report.left_out_tokens += labels - kept
        longest = max(len(ids) for ids, _ in learnable)
        if not fitted:
            report.overlong += 1
            report.skip(record.source, record.line, _overlong_reason(policy), f"{longest} tokens", self._log)
            return []
        if isinstance(record.record, Text) and not record.record.begins:
            return fitted  # counted with its beginning
        report.used += 1
        report.split_chats += len(sequences) > 1
        if longest > limit:
            report.split += policy == "split"
            report.truncated += policy != "split"
        return fitted


def vocabulary(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The tokenizer as JSON.

    Raises:
        SpecError: it has no fast version, which alone tells where a token lies in the text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise SpecError(
            f"the tokenizer of {tokenizer.name_or_path or 'the model'} ({type(tokenizer).__name__}) has no fast"
            " version: the model folder needs a tokenizer.json."
        )
    text: str = backend.to_str()
    return text


def _overlong_reason(policy: Overlong) -> str:
    return "no label left within data.maxTokens" if policy == "truncate" else "longer than data.maxTokens"


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(
            "half of a surrogate pair", f"\\u{ord(text[error.start]):04x}, which is not a character"
        ) from error


def _frame(tokenizer: "PreTrainedTokenizerBase") -> _Frame:
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if end is None:
        raise SpecError(
            f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no end-of-sequence token (eos_token in"
            " tokenizer_config.json), so the model could not learn where a text ends."
        )
    begins = begin is not None and tokenizer("a")["input_ids"][:1] == [begin]
    return _Frame(np.array([begin] if begins else [], dtype=np.int32), np.array([end], dtype=np.int32))
