"""Turns measured series into what fits a plot: buckets of many steps, axis ticks, and numbers as people read them.

Pure functions of numbers; `charts.py` draws with them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Bucket:
    """Neighbouring points as one: their mean position and mean value, and the lowest and highest value among them."""

    x: float
    mean: float
    low: float
    high: float


def bucketed(points: Iterable[tuple[float, float | None]], limit: int) -> list[Bucket]:
    """At most `limit` buckets of (x, y) points in order; no spike is lost, since each bucket keeps its extremes.

    Points without a finite value (not measured, or a loss that became NaN) are left out.
    """
    finite = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    count = min(limit, len(finite))
    buckets = []
    for index in range(count):
        part = finite[index * len(finite) // count : (index + 1) * len(finite) // count]
        values = [y for _, y in part]
        buckets.append(
            Bucket(math.fsum(x for x, _ in part) / len(part), math.fsum(values) / len(part), min(values), max(values))
        )
    return buckets


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers (1, 2, 2.5 or 5 times a power of ten apart) that reach over [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):  # one value, as far as a label can tell
        spread = abs(low) if abs(low) > 1e-30 else 1.0
        low, high = low - spread / 2, high + spread / 2
    rough = (high - low) / max(1, wanted - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Labels with as many decimals as tell the values apart, in powers of ten or thousands where that is shorter."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return ["0" for _ in values]
    step = min((b - a for a, b in pairwise(values)), default=largest)
    if largest < 0.001:
        return ["0" if value == 0 else _power(value) for value in values]
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if largest >= size:
            unit = 1e3 if suffix == "k" else size
            return [f"{_plain(value / unit, step / unit)}{suffix if value else ''}" for value in values]
    return [_plain(value, step) for value in values]


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _plain(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step * 10**decimals, 6) != round(step * 10**decimals):
        decimals += 1
    return f"{value:,.{decimals}f}"


def byte_size(count: float | None) -> str:
    """Bytes in the largest binary unit that keeps the number above one."""
    if count is None:
        return "not measured"
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 8.3 s, 4 min 10 s, 2 h 05 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
