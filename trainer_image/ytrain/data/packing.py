"""Packs samples into rows of bounded length with little empty space: best-fit decreasing.

Which samples are packed together does not change what is learned (attention is per sample), only how fast.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def pack(lengths: Sequence[int] | npt.NDArray[np.integer], capacity: int) -> list[list[int]]:
    """Puts each sample, longest first, into the fullest row that still holds it.

    Best-fit decreasing needs at most 11/9 of the optimum's rows, plus 4 (Johnson 1974). Equal inputs give equal rows.

    Args:
        lengths: tokens of each sample.
        capacity: most tokens of a row.

    Returns:
        Rows of indices into `lengths`; each index occurs once.

    Raises:
        ValueError: a sample is longer than a row.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and sizes.max() > capacity:
        longest = int(sizes.argmax())
        raise ValueError(f"sample {longest} has {sizes[longest]} tokens, a row holds {capacity}")
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free tokens, row), ascending
    for index in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[index])
        at = bisect_left(free, (size, -1))
        if at == len(free):
            row, left = len(rows), capacity
            rows.append([])
        else:
            left, row = free.pop(at)
        rows[row].append(index)
        if left > size:
            insort(free, (left - size, row))
    return rows
