"""Which samples, or windows of a sample, every optimizer step of a run trains on, and in which rows.

The plan depends on the data and the job alone. It is recomputed, not stored: step k of a resumed run is step k.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ytrain.data.order import plan_epoch
from ytrain.data.packing import pack
from ytrain.data.rows import Segment


@dataclass(frozen=True, kw_only=True)
class Step:
    """One global optimizer step."""

    number: int
    """From 1, over all epochs."""
    epoch: float
    """Epochs done after this step."""
    rows: tuple[tuple[Segment, ...], ...]
    labels: int
    """Labels of all rows: what the step's loss is divided by."""
    lengths: tuple[int, ...]
    """Tokens of each row."""

    def share(self, rank: int, ranks: int) -> list[tuple[Segment, ...]]:
        """The rows of one of `ranks` ranks: each row is one rank's, the longest first to whoever has least."""
        loads = [(0, number) for number in range(ranks)]  # (tokens so far, rank): a heap
        mine = []
        for row in sorted(range(len(self.rows)), key=lambda row: (-self.lengths[row], row)):
            tokens, owner = heapq.heappop(loads)
            heapq.heappush(loads, (tokens + self.lengths[row], owner))
            if owner == rank:
                mine.append(self.rows[row])
        return mine

    def most_rows(self, ranks: int) -> int:
        """Rows of the rank that has most of them."""
        return max(len(self.share(rank, ranks)) for rank in range(ranks))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a run over `lengths` and `label_counts` (tokens and labels of each sample)."""

    lengths: np.ndarray
    label_counts: np.ndarray
    seed: int
    epochs: int
    max_steps: int | None
    batch_tokens: int | None
    batch_sequences: int | None
    row_tokens: int
    """Most tokens of a row; a longer sample is a row of its own."""
    packing: bool
    window_tokens: int | None
    """With windows, a step trains on this many labels of one sample, and the batch settings say nothing."""

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        if self.window_tokens is not None:
            steps = self.epochs * int((-(-self.label_counts // self.window_tokens)).sum())
        else:
            steps = sum(len(self._epoch_groups(epoch)) for epoch in range(self.epochs))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def steps(self, *, after: int = 0) -> Iterator[Step]:
        """The steps behind number `after`; passing over the ones before costs no data access."""
        number, total = 0, self.total_steps
        for epoch in range(self.epochs):
            for share_done, unit in self._epoch_units(epoch):
                number += 1
                if number > total:
                    return
                if number > after:
                    yield self._step(number, epoch + share_done, unit)

    def _epoch_groups(self, epoch: int) -> list[Any]:
        return plan_epoch(
            self.lengths, self.seed, epoch, batch_tokens=self.batch_tokens, batch_sequences=self.batch_sequences
        )

    def _epoch_units(self, epoch: int) -> Iterator[tuple[float, Sequence[Segment]]]:
        """Share of the epoch done, and segments, of each step."""
        if self.window_tokens is None:
            groups = self._epoch_groups(epoch)
            for index, group in enumerate(groups, start=1):
                yield index / len(groups), [Segment(int(i), 0, int(self.label_counts[i])) for i in group]
            return
        order = plan_epoch(self.lengths, self.seed, epoch, batch_sequences=1)
        for index, (sample,) in enumerate(order):
            labels = int(self.label_counts[sample])
            for first in range(0, labels, self.window_tokens):
                end = min(first + self.window_tokens, labels)
                yield (index + end / labels) / len(order), [Segment(int(sample), first, end)]

    def _step(self, number: int, epoch: float, segments: Sequence[Segment]) -> Step:
        labels = sum(segment.end_label - segment.first_label for segment in segments)
        rows = self._rows(segments)
        lengths = tuple(sum(int(self.lengths[segment.sample]) for segment in row) for row in rows)
        return Step(number=number, epoch=epoch, rows=rows, labels=labels, lengths=lengths)

    def _rows(self, segments: Sequence[Segment]) -> tuple[tuple[Segment, ...], ...]:
        if not self.packing:
            return tuple((segment,) for segment in segments)
        lengths = [int(self.lengths[segment.sample]) for segment in segments]
        packed = pack(lengths, max(self.row_tokens, *lengths))
        return tuple(tuple(segments[i] for i in row) for row in packed)
