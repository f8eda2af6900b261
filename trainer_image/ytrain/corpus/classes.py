"""What loss and entropy together say of an answer: classes by z-scores, and the spans where the model was surprised.

High loss where the model was sure (low entropy) is the mark of a wrong label; high loss where it was unsure is not.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SampleClass = Literal["likelyWrongLabel", "hard", "lucky", "overConfident", "normal"]
CLASSES: tuple[SampleClass, ...] = get_args(SampleClass)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over a corpus."""

    mean: float
    deviation: float

    @staticmethod
    def of(parts: Iterable[npt.ArrayLike]) -> "Spread":
        """Of all finite values of the parts, which need not be in memory together; NaN where there are none."""
        count, total, squares = 0, 0.0, 0.0
        for part in parts:
            values = np.asarray(part, dtype=np.float64)
            values = values[np.isfinite(values)]
            count, total, squares = count + values.size, total + values.sum(), squares + (values**2).sum()
        if not count:
            return Spread(math.nan, math.nan)
        mean = total / count
        return Spread(float(mean), float(np.sqrt(max(0.0, squares / count - mean**2))))

    def z(self, values: npt.ArrayLike) -> Floats:
        """Distance from the mean in deviations; zero where all values are the same."""
        centred: Floats = np.asarray(values, dtype=np.float64) - self.mean
        return centred / self.deviation if self.deviation > 0 else np.zeros_like(centred)


def classify(z_loss: Floats, z_entropy: Floats, threshold: float) -> npt.NDArray[np.int64]:
    """The index into `CLASSES` of each pair of z-scores `[N]`."""
    high_loss, low_loss = z_loss > threshold, z_loss < -threshold
    high_entropy, low_entropy = z_entropy > threshold, z_entropy < -threshold
    conditions = [high_loss & low_entropy, high_loss & high_entropy, low_loss & high_entropy, low_loss & low_entropy]
    return np.select(conditions, [0, 1, 2, 3], default=4)


def smoothed(values: Floats, tokens: int) -> Floats:
    """Centred mean over `tokens` values; at the ends over as many as there are."""
    before, after = (tokens - 1) // 2, tokens // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    begin, end = np.maximum(at - before, 0), np.minimum(at + after + 1, len(values))
    means: Floats = (sums[end] - sums[begin]) / (end - begin)
    return means


def suspicious_spans(divergence: Floats, threshold: float) -> list[tuple[int, int]]:
    """[begin, end) of the runs in which z(loss) - z(entropy) reaches the threshold."""
    edges = np.diff(np.concatenate([[0], (divergence >= threshold).astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))
