"""Counts what became of every record, so that nothing is left out in silence.

`Tally` counts while records stream; `DataReport` is the result that is stored, summed and shown.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

import xxhash

FIRST_SKIPPED = 10


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is not trained on; a line of `skipped.jsonl`."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class DataReport:
    """What became of the records of one data set."""

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
    reasons: dict[str, int] = field(default_factory=dict)
    """Records left out, by reason."""
    first_skipped: tuple[Skipped, ...] = ()
    """The first ten records left out."""
    digest: str = ""
    """Content digest of the data files, in order."""

    @property
    def skipped(self) -> int:
        """Records left out for any reason."""
        return self.bad + self.overlong

    @property
    def bad_fraction(self) -> float:
        """Bad records of those read."""
        return self.bad / self.read if self.read else 0.0

    def to_json(self) -> dict[str, Any]:
        """The `data` entry of `result.json`."""
        return {
            "read": self.read,
            "used": self.used,
            "skipped": self.skipped,
            "overlong": self.overlong,
            "truncated": self.truncated,
            "split": self.split,
            "splitChats": self.split_chats,
            "samples": self.samples,
            "tokens": self.tokens,
            "supervisedTokens": self.supervised_tokens,
            "reasons": self.reasons,
            "firstSkipped": [asdict(skipped) for skipped in self.first_skipped],
            "digest": self.digest,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "DataReport":
        """The inverse of `to_json`."""
        return DataReport(
            read=value["read"],
            used=value["used"],
            bad=value["skipped"] - value["overlong"],
            overlong=value["overlong"],
            truncated=value["truncated"],
            split=value["split"],
            split_chats=value["splitChats"],
            samples=value["samples"],
            tokens=value["tokens"],
            supervised_tokens=value["supervisedTokens"],
            reasons=value["reasons"],
            first_skipped=tuple(Skipped(**skipped) for skipped in value["firstSkipped"]),
            digest=value["digest"],
        )


def total(reports: Iterable[tuple[DataReport, int]]) -> DataReport:
    """Sums the reports of several sources, each with its number of repeats.

    Records count once; samples, tokens and labels count as often as an epoch repeats them.
    """
    parts = list(reports)
    reasons: Counter[str] = Counter()
    for part, _ in parts:
        reasons.update(part.reasons)
    return DataReport(
        read=sum(part.read for part, _ in parts),
        used=sum(part.used for part, _ in parts),
        bad=sum(part.bad for part, _ in parts),
        overlong=sum(part.overlong for part, _ in parts),
        truncated=sum(part.truncated for part, _ in parts),
        split=sum(part.split for part, _ in parts),
        split_chats=sum(part.split_chats for part, _ in parts),
        samples=sum(part.samples * repeat for part, repeat in parts),
        tokens=sum(part.tokens * repeat for part, repeat in parts),
        supervised_tokens=sum(part.supervised_tokens * repeat for part, repeat in parts),
        reasons=dict(reasons.most_common()),
        first_skipped=tuple(skipped for part, _ in parts for skipped in part.first_skipped)[:FIRST_SKIPPED],
        digest=xxhash.xxh3_128_hexdigest("".join(part.digest for part, _ in parts).encode()),
    )


class Tally:
    """Running counts; writes each skipped record to `skipped` as a JSON line at once."""

    def __init__(self, skipped: TextIO) -> None:
        self._skipped = skipped
        self._reasons: Counter[str] = Counter()
        self._first: list[Skipped] = []
        self.read = 0
        self.used = 0
        self.bad = 0
        self.overlong = 0
        self.truncated = 0
        self.split = 0
        self.split_chats = 0
        self.samples = 0
        self.tokens = 0
        self.supervised_tokens = 0

    def skip(self, source: str, line: int, reason: str, detail: str = "") -> None:
        """Notes a record that is left out; the caller counts it as bad or overlong."""
        skipped = Skipped(source, line, f"{reason}: {detail}" if detail else reason)
        self._reasons[reason] += 1
        if len(self._first) < FIRST_SKIPPED:
            self._first.append(skipped)
        self._skipped.write(json.dumps(asdict(skipped), ensure_ascii=False) + "\n")

    def report(self, digest: str) -> DataReport:
        """The counts so far."""
        return DataReport(
            read=self.read,
            used=self.used,
            bad=self.bad,
            overlong=self.overlong,
            truncated=self.truncated,
            split=self.split,
            split_chats=self.split_chats,
            samples=self.samples,
            tokens=self.tokens,
            supervised_tokens=self.supervised_tokens,
            reasons=dict(self._reasons.most_common()),
            first_skipped=tuple(self._first),
            digest=digest,
        )
