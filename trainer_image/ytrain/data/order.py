"""The order in which an epoch sees its samples, and which samples make up a global optimizer step.

Both depend on the seed and the epoch alone, never on packing or on the number of ranks, so that a run resumed with
another number of workers goes on with the same steps.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def plan_epoch(
    lengths: Sequence[int] | npt.NDArray[np.integer],
    seed: int,
    epoch: int,
    *,
    batch_tokens: int | None = None,
    batch_sequences: int | None = None,
) -> list[npt.NDArray[np.int64]]:
    """Shuffles the samples and cuts them into global steps.

    Args:
        lengths: tokens of each sample.
        batch_tokens: a step is filled in order until the next sample would take it over this many tokens. A longer
            sample is a step of its own.
        batch_sequences: a step has this many samples. Exactly one of the two is given.

    Returns:
        Indices of the samples of each step. The last step may be smaller. Every sample occurs exactly once.
    """
    assert (batch_tokens is None) != (batch_sequences is None)
    sizes = np.asarray(lengths, dtype=np.int64)
    # NumPy keeps the bits of a BitGenerator the same between its versions (NEP 19), not what Generator makes of them.
    order = np.argsort(np.random.PCG64([seed, epoch]).random_raw(len(sizes)), kind="stable")
    if batch_sequences is not None:
        starts = range(batch_sequences, len(order), batch_sequences)
        return np.split(order, starts) if len(order) else []
    assert batch_tokens is not None
    return _by_tokens(order, sizes[order], batch_tokens)


def _by_tokens(
    order: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], batch_tokens: int
) -> list[npt.NDArray[np.int64]]:
    ends = np.cumsum(sizes)
    steps: list[npt.NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        before = ends[start] - sizes[start]
        end = max(start + 1, int(np.searchsorted(ends, before + batch_tokens, side="right")))
        steps.append(order[start:end])
        start = end
    return steps
