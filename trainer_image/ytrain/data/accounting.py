"""Counts what became of every record, so that nothing is left out in silence.

The report grows while records stream, is stored with the tokens, summed over sources, and shown in `result.json`.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field, computed_field
from pydantic.alias_generators import to_camel

FIRST_SKIPPED = 10


class Skipped(BaseModel):
    """A record that is not trained on; a line of `skipped.jsonl`."""

    model_config = ConfigDict(frozen=True)

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


class DataReport(BaseModel):
    """What became of the records of one data set."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    read: int = 0
    """Records found."""
    used: int = 0
    """Records of which at least one sample is trained on."""
    bad: int = 0
    """Records that cannot be used, whatever the settings; what `data.maxBadFraction` limits."""
    overlong: int = 0
    """Records left out because they are longer than `data.maxTokens`."""
    truncated: int = 0
    """Records of which a part is left out because of `data.maxTokens`."""
    split: int = 0
    """Records cut into several samples because of `data.maxTokens`."""
    split_chats: int = 0
    """Chats that became a sample a turn, because the chat template rewrites earlier turns."""
    samples: int = 0
    """Samples of an epoch, repeats included."""
    tokens: int = 0
    """Tokens of an epoch, repeats included."""
    supervised_tokens: int = 0
    """Labels of an epoch, repeats included."""
    encoded_tokens: int = 0
    """Tokens of the records that are not bad, each once: learned, context, or left out."""
    context_tokens: int = 0
    """Of these, those that are given and not learned: prompts, and the token that a text begins with."""
    left_out_tokens: int = 0
    """Of these, those that would be learned if `data.maxTokens` were larger."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Records left out, by reason."""
    first_skipped: list[Skipped] = Field(default_factory=list)
    """The first ten records left out."""
    digest: str = ""
    """Content digest of the data files, in order."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def skipped(self) -> int:
        """Records left out for any reason."""
        return self.bad + self.overlong

    @property
    def bad_fraction(self) -> float:
        """Bad records of those read."""
        return self.bad / self.read if self.read else 0.0

    def skip(self, source: str, line: int, reason: str, detail: str, log: TextIO) -> None:
        """Notes a record that is left out, whom the caller counts as bad or overlong, and logs it as a JSON line."""
        skipped = Skipped(source=source, line=line, reason=f"{reason}: {detail}" if detail else reason)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if len(self.first_skipped) < FIRST_SKIPPED:
            self.first_skipped.append(skipped)
        log.write(json.dumps(skipped.model_dump(), ensure_ascii=False) + "\n")

    def to_json(self) -> dict[str, Any]:
        """The `data` entry of `result.json`; `DataReport.model_validate` is the inverse."""
        return self.model_dump(by_alias=True)


_ENCODED = ("encoded_tokens", "context_tokens", "left_out_tokens")
_RECORDS = ("read", "used", "bad", "overlong", "truncated", "split", "split_chats", *_ENCODED)
_PER_EPOCH = ("samples", "tokens", "supervised_tokens")


def total(reports: Iterable[tuple[DataReport, float]], digest: str) -> DataReport:
    """Sums the reports of several sources, each with how often an epoch sees it.

    Records and what was encoded of them count once; samples, tokens and labels count as often as an epoch repeats them.
    """
    parts = list(reports)
    records = {name: sum(getattr(part, name) for part, _ in parts) for name in _RECORDS}
    per_epoch = {name: round(sum(getattr(part, name) * repeat for part, repeat in parts)) for name in _PER_EPOCH}
    reasons = sum((Counter(part.reasons) for part, _ in parts), Counter[str]())
    first = [skipped for part, _ in parts for skipped in part.first_skipped][:FIRST_SKIPPED]
    return DataReport(**records, **per_epoch, reasons=dict(reasons.most_common()), first_skipped=first, digest=digest)
