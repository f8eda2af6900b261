"""The samples of an epoch, the order in which it sees them, and which of them make up a global optimizer step.

All of it depends on the seed and the epoch alone, never on how rows are packed or on the number of ranks, so that a run
resumed with another number of workers goes on with the same steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ytrain.data.packing import pack

Indices = npt.NDArray[np.int64]
Sizes = Sequence[int] | npt.NDArray[np.integer]

LOOKAHEAD_ROWS = 1024
"""Samples of so many rows are packed together: enough that nearly no row has a gap, few beside a corpus."""


def epoch_samples(parts: Sequence[tuple[int, float]], seed: int, epoch: int) -> Indices:
    """Which samples an epoch sees, in the order of the data set.

    Args:
        parts: samples of each source, and how often an epoch sees them. The data set holds each source as often as
            that, rounded up; of the last copy a fraction is seen, in each epoch those that follow the last epoch's.
    """
    seen, first = [np.empty(0, np.int64)], 0
    for number, (count, repeat) in enumerate(parts):
        whole = int(repeat)
        seen.append(np.arange(first, first + count * whole))
        first += count * whole
        if whole < repeat:
            begin, end = (round(count * (repeat - whole) * times) for times in (epoch, epoch + 1))
            order = _permutation(count, seed, number)
            seen.append(first + np.sort(order[np.arange(begin, end) % count]))
            first += count
    return np.concatenate(seen)


def plan_epoch(
    lengths: Sizes,
    seed: int,
    epoch: int,
    *,
    samples: Indices | None = None,
    batch_tokens: int | None = None,
    batch_sequences: int | None = None,
) -> list[Indices]:
    """Shuffles the samples and cuts them into global steps.

    Args:
        lengths: tokens of each sample.
        samples: those that the epoch sees; absent, all.
        batch_tokens: a step is filled in order until the next sample would take it over this many tokens. A longer
            sample is a step of its own.
        batch_sequences: a step has this many samples. Exactly one of the two is given.

    Returns:
        Indices of the samples of each step. The last step may be smaller. Every sample occurs exactly once.
    """
    assert (batch_tokens is None) != (batch_sequences is None)
    sizes = np.asarray(lengths)
    order = _shuffled(len(sizes) if samples is None else samples, seed, epoch)
    if batch_sequences is not None:
        starts = range(batch_sequences, len(order), batch_sequences)
        return np.split(order, starts) if len(order) else []
    assert batch_tokens is not None
    return _by_tokens(order, sizes[order], batch_tokens)


@dataclass(frozen=True)
class RowOrder:
    """The rows of an epoch, in order; row r holds `samples[starts[r]:starts[r + 1]]`."""

    samples: Indices
    starts: Indices

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> Indices:
        """The samples of a row."""
        return self.samples[self.starts[number] : self.starts[number + 1]]


def plan_rows(lengths: Sizes, seed: int, epoch: int, *, row_tokens: int, samples: Indices | None = None) -> RowOrder:
    """Shuffles the samples and packs them into rows, of which steps are then made that are full to the last row.

    Samples near each other in the shuffled order are packed together, and the rows shuffled among themselves, so that a
    step is as random as the samples are.

    Args:
        lengths: tokens of each sample.
        row_tokens: most tokens of a row; a longer sample is a row of its own.
        samples: those that the epoch sees; absent, all.
    """
    sizes = np.asarray(lengths)
    order = _shuffled(len(sizes) if samples is None else samples, seed, epoch)
    if not len(order):  # a small source of which an epoch sees a part
        return RowOrder(order, np.zeros(1, np.int64))
    ends = np.cumsum(sizes[order], dtype=np.int64)
    buffers = np.searchsorted(
        ends, np.arange(1, ends[-1] // (LOOKAHEAD_ROWS * row_tokens) + 1) * LOOKAHEAD_ROWS * row_tokens
    )
    placed, counts = [], []
    for number, buffer in enumerate(np.split(order, buffers)):
        buffer_sizes = sizes[buffer]
        rows = pack(buffer_sizes, max(row_tokens, int(buffer_sizes.max(initial=0))))
        for row in _permutation(len(rows), seed, epoch, number).tolist():
            placed.append(buffer[rows[row]])
            counts.append(len(rows[row]))
    return RowOrder(np.concatenate(placed), np.concatenate([[0], np.cumsum(counts)]))


def _shuffled(samples: int | Indices, seed: int, epoch: int) -> Indices:
    if isinstance(samples, int):
        return _permutation(samples, seed, epoch)
    return samples[_permutation(len(samples), seed, epoch)]


def _permutation(count: int, *seeds: int) -> Indices:
    # NumPy keeps the bits of a BitGenerator the same between its versions (NEP 19), not what Generator makes of them.
    return np.argsort(np.random.PCG64(list(seeds)).random_raw(count), kind="stable")


def _by_tokens(order: Indices, sizes: npt.NDArray[np.integer], batch_tokens: int) -> list[Indices]:
    ends = np.cumsum(sizes, dtype=np.int64)
    steps: list[Indices] = []
    start = 0
    while start < len(order):
        before = ends[start] - sizes[start]
        end = max(start + 1, int(np.searchsorted(ends, before + batch_tokens, side="right")))
        steps.append(order[start:end])
        start = end
    return steps
