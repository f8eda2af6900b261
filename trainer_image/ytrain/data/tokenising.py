"""Turns the records of a source into samples: parse, render, encode in batches, cut to length, count what is lost.

Streams from end to end. What it produces is stored by cache.py and read by dataset.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
from transformers import PreTrainedTokenizerBase

from ytrain.data.accounting import DataReport
from ytrain.data.chat import ChatRenderer, Rendered, Supervise, render_text
from ytrain.data.dataset import Sample
from ytrain.data.encoding import Encoder, Mask, Tokens
from ytrain.data.formats import RecordKind, normalise
from ytrain.data.overlong import Overlong, fit, split_context
from ytrain.data.reading import RawRecord
from ytrain.data.records import Chat, Text, Unusable
from ytrain_api.errors import SpecError

_BATCH_CHARACTERS = 1 << 19
"""Texts encoded in one call: enough work for every core, few enough that memory stays flat."""


@dataclass(frozen=True)
class TokenSettings:
    """What, besides the data and the tokenizer, decides which tokens a record becomes."""

    max_tokens: int
    """Longest sample, in tokens; at least 2."""
    kind: RecordKind = "any"
    """What may be trained on where a source's format is `auto`: chat, text or any."""
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


@dataclass(frozen=True, slots=True)
class _Pending:
    line: int
    chat: bool
    texts: list[Rendered]


class Tokeniser:
    """Tokenises the records of one source.

    Args:
        format: how to read each record: `auto`, or one of `formats.FORMATS`.
        report: is counted up.
        log: gets a JSON line for each record left out.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: TokenSettings, format: str, report: DataReport, log: TextIO
    ) -> None:
        self._format = format
        self._report = report
        self._log = log
        self._settings = settings
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        # Made when first needed: a base model has no template, and a chat needs no end-of-sequence token.
        self._renderer: ChatRenderer | None = None
        self._frame: tuple[str, str] | None = None

    def samples(self, records: Iterable[RawRecord], source: str) -> Iterator[Sample]:
        """The samples of one file, which messages call `source`, in its order."""
        pending: list[_Pending] = []
        characters = 0
        for raw in records:
            self._report.read += 1
            try:
                rendered = self._render(raw)
            except Unusable as fault:
                self._report.bad += 1
                self._report.skip(source, raw.line, fault.reason, fault.detail, self._log)
                continue
            pending.append(rendered)
            characters += sum(len(text.text) for text in rendered.texts)
            if characters >= _BATCH_CHARACTERS:
                yield from self._encode(pending, source)
                pending, characters = [], 0
        yield from self._encode(pending, source)

    def _render(self, raw: RawRecord) -> _Pending:
        if raw.fault is not None:
            raise Unusable("cannot be decoded", raw.fault)
        settings = self._settings
        record = normalise(raw.value, kind=settings.kind, format=self._format, system_prompt=settings.system_prompt)
        match record:
            case Chat():
                if self._renderer is None:
                    self._renderer = ChatRenderer(self._tokenizer, settings.chat_template, settings.chat_template_args)
                texts = self._renderer.render(record, settings.supervise)
            case Text():
                if self._frame is None:
                    self._frame = _frame(self._tokenizer)
                texts = [render_text(record, *self._frame)]
        for text in texts:
            _check_characters(text.text)
        return _Pending(raw.line, isinstance(record, Chat), texts)

    def _encode(self, pending: list[_Pending], source: str) -> Iterator[Sample]:
        encoded = iter(self._encoder.encode([text for record in pending for text in record.texts]))
        for record in pending:
            sequences = [next(encoded) for _ in record.texts]
            for ids, mask in self._fit(record, sequences, source):
                self._report.samples += 1
                self._report.tokens += len(ids)
                self._report.supervised_tokens += int(np.count_nonzero(mask))
                yield Sample(ids, mask, source, record.line)

    def _fit(self, record: _Pending, sequences: list[tuple[Tokens, Mask]], source: str) -> list[tuple[Tokens, Mask]]:
        """Cuts the sequences of one record to length and counts the record."""
        report, limit, policy = self._report, self._settings.max_tokens, self._settings.overlong
        learnable = [(ids, mask) for ids, mask in sequences if mask.any()]
        if not learnable:
            report.bad += 1
            report.skip(source, record.line, "no token to learn", "", self._log)
            return []
        context = split_context(limit, chat=record.chat)
        fitted = [piece for ids, mask in learnable for piece in fit(ids, mask, limit, policy, context)]
        longest = max(len(ids) for ids, _ in learnable)
        if not fitted:
            report.overlong += 1
            report.skip(source, record.line, _overlong_reason(policy), f"{longest} tokens", self._log)
            return []
        report.used += 1
        report.split_chats += len(sequences) > 1
        if longest > limit:
            report.split += policy == "split"
            report.truncated += policy != "split"
        return fitted


def _overlong_reason(policy: Overlong) -> str:
    return "no label left within data.maxTokens" if policy == "truncate" else "longer than data.maxTokens"


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(
            "half of a surrogate pair", f"\\u{ord(text[error.start]):04x}, which is not a character"
        ) from error


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Text of the tokens that begin and end a plain text: the beginning only where the tokenizer itself adds it."""
    end = tokenizer.eos_token
    if end is None:
        raise SpecError(
            f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no end-of-sequence token (eos_token in"
            " tokenizer_config.json), so the model could not learn where a text ends."
        )
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return (tokenizer.bos_token if begins else ""), end
