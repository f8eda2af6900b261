"""Which samples, or windows of a sample, every optimizer step of a run trains on, and in which rows.

The plan depends on the data and the job alone. It is recomputed, not stored: step k of a resumed run is step k.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ytrain.data.order import RowOrder, plan_epoch, plan_rows
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
    step_row_tokens: int | None = None
    """With it, batch_tokens are as many full rows of this size as they hold; without, the next samples."""
    epoch_samples: Callable[[int], np.ndarray] | None = None
    """The samples that an epoch sees; absent, all."""

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = sum(self._epoch_steps(epoch) for epoch in range(self.epochs))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def steps(self, *, after: int = 0) -> Iterator[Step]:
        """The steps behind number `after`; passing over the ones before costs no data access."""
        number, total = 0, self.total_steps
        for epoch in range(self.epochs):
            for share_done, groups in self._epoch_units(epoch):
                number += 1
                if number > total:
                    return
                if number > after:
                    yield self._step(number, epoch + share_done, groups)

    def _epoch_steps(self, epoch: int) -> int:
        if self.window_tokens is not None:
            return int((-(-self.label_counts[self._samples(epoch)] // self.window_tokens)).sum())
        if self._whole_rows is not None:
            return -(-len(self._row_order(epoch)) // self._whole_rows)
        return len(self._epoch_groups(epoch))

    @property
    def _whole_rows(self) -> int | None:
        """Full rows of a step, where steps are made of them."""
        if self.step_row_tokens is None or self.batch_tokens is None:
            return None
        return max(1, self.batch_tokens // self.step_row_tokens)

    def _samples(self, epoch: int) -> np.ndarray:
        return np.arange(len(self.lengths)) if self.epoch_samples is None else self.epoch_samples(epoch)

    def _epoch_groups(self, epoch: int) -> list[Any]:
        return plan_epoch(
            self.lengths,
            self.seed,
            epoch,
            samples=self._samples(epoch),
            batch_tokens=self.batch_tokens,
            batch_sequences=self.batch_sequences,
        )

    def _row_order(self, epoch: int) -> RowOrder:
        assert self.step_row_tokens is not None
        return plan_rows(self.lengths, self.seed, epoch, samples=self._samples(epoch), row_tokens=self.step_row_tokens)

    def _epoch_units(self, epoch: int) -> Iterator[tuple[float, Sequence[Sequence[Segment]]]]:
        """Share of the epoch done, and the segments of each step, in groups that are packed each by itself."""
        if self.window_tokens is not None:
            for share, segment in self._windows(epoch, self.window_tokens):
                yield share, [[segment]]
        elif self._whole_rows is not None:
            order, rows = self._row_order(epoch), self._whole_rows
            for first in range(0, len(order), rows):
                end = min(first + rows, len(order))
                yield end / len(order), [self._whole(order.row(number)) for number in range(first, end)]
        else:
            groups = self._epoch_groups(epoch)
            for index, group in enumerate(groups, start=1):
                yield index / len(groups), [self._whole(group)]

    def _windows(self, epoch: int, window_tokens: int) -> Iterator[tuple[float, Segment]]:
        order = plan_epoch(self.lengths, self.seed, epoch, samples=self._samples(epoch), batch_sequences=1)
        for index, (sample,) in enumerate(order):
            labels = int(self.label_counts[sample])
            for first in range(0, labels, window_tokens):
                end = min(first + window_tokens, labels)
                yield (index + end / labels) / len(order), Segment(int(sample), first, end)

    def _whole(self, samples: np.ndarray) -> list[Segment]:
        return [Segment(int(i), 0, int(self.label_counts[i])) for i in samples]

    def _step(self, number: int, epoch: float, groups: Sequence[Sequence[Segment]]) -> Step:
        labels = sum(segment.end_label - segment.first_label for group in groups for segment in group)
        rows = self._rows(groups)
        lengths = tuple(sum(int(self.lengths[segment.sample]) for segment in row) for row in rows)
        return Step(number=number, epoch=epoch, rows=rows, labels=labels, lengths=lengths)

    def _rows(self, groups: Sequence[Sequence[Segment]]) -> tuple[tuple[Segment, ...], ...]:
        if not self.packing:
            return tuple((segment,) for group in groups for segment in group)
        if self._whole_rows is not None and self.window_tokens is None:
            # A forward pass may hold several of them.
            assert self.step_row_tokens is not None
            together = max(1, self.row_tokens // self.step_row_tokens)
            merged = (groups[first : first + together] for first in range(0, len(groups), together))
            return tuple(tuple(segment for group in row for segment in group) for row in merged)
        (segments,) = groups
        lengths = [int(self.lengths[segment.sample]) for segment in segments]
        packed = pack(lengths, max(self.row_tokens, *lengths))
        return tuple(tuple(segments[i] for i in row) for row in packed)
