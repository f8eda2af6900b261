"""Lays out the charts of the page: data in, positions in percent of the plot area and path strings out.

The template draws them as SVG whose lines stretch with the page while its text keeps its size, so one drawing serves a
phone and a wide screen; colours come from the page's style sheet, so it also serves light and dark.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ytrain.report.series import Bucket, bucketed, tick_labels, ticks

DRAWN_POINTS = 160
"""Buckets along one line: about one every three pixels at the width a chart has on the page."""

DOTTED_POINTS = 30
"""Up to this many points each is drawn as a dot too, because a short run is read point by point."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in percent of the plot area from its left or top, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A marked point, in percent of the plot area; `text` appears when it is pointed at, `label` beside it always."""

    x: float
    y: float
    text: str
    label: str = ""


@dataclass(frozen=True)
class Line:
    """One drawn series: SVG path data in a 1000 by 1000 box, the band spanning the extremes of each bucket."""

    name: str
    colour: int
    path: str
    band: str = ""
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in percent of the plot area."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart ready to draw; `summary` says in words what it shows, for those who do not see it."""

    title: str
    unit: str
    x_name: str
    summary: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    legend: tuple[tuple[str, int], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Series:
    """A named series of (step, value) points; `dotted` draws every point as a dot, however many there are.

    With `deviations`, one to a point, the band spans one deviation to either side instead of the extremes of a bucket.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int = 1
    dotted: bool = False
    deviations: Sequence[float | None] | None = None
    drawn: list[Bucket] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "drawn", self._drawn())

    def _drawn(self) -> list[Bucket]:
        if self.deviations is None:
            return bucketed(self.points, DRAWN_POINTS)
        both = [
            (x, mean, deviation)
            for (x, mean), deviation in zip(self.points, self.deviations, strict=True)
            if mean is not None and deviation is not None and math.isfinite(mean) and math.isfinite(deviation)
        ]
        means = bucketed([(x, mean) for x, mean, _ in both], DRAWN_POINTS)
        spreads = bucketed([(x, deviation) for x, _, deviation in both], DRAWN_POINTS)
        return [
            replace(bucket, low=bucket.mean - spread.mean, high=bucket.mean + spread.mean)
            for bucket, spread in zip(means, spreads, strict=True)
        ]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def line_chart(
    title: str, unit: str, series: Iterable[Series], *, from_zero: bool = False, note: str = ""
) -> Chart | None:
    """Series over the optimizer step; None when nothing finite was measured."""
    drawn = [one for one in series if one.drawn]
    if not drawn:
        return None
    buckets = [bucket for one in drawn for bucket in one.drawn]
    x_axis = _steps_axis([x for one in drawn for x, _ in one.points])
    low = 0.0 if from_zero else min(bucket.low for bucket in buckets)
    y_ticks = ticks(low, max(bucket.high for bucket in buckets), 5)
    y_axis = _Axis(y_ticks[0], y_ticks[-1])
    x_ticks = [tick for tick in ticks(x_axis.low, x_axis.high, 5) if x_axis.low <= tick <= x_axis.high]
    return Chart(
        title=title,
        unit=unit,
        x_name="step",
        summary=" ".join(_described(one) for one in drawn),
        x_ticks=_x_ticks([tick for tick in x_ticks if tick == round(tick)], x_axis),
        y_ticks=_y_ticks(y_ticks, y_axis),
        lines=tuple(_line(one, x_axis, y_axis) for one in drawn),
        legend=tuple((one.name, one.colour) for one in drawn) if len(drawn) > 1 else (),
        note=note,
    )


def histogram(
    title: str, unit: str, x_name: str, groups: Sequence[tuple[str, Sequence[int]]], edges: Sequence[float]
) -> Chart | None:
    """Groups of counts in bins between the `edges`, drawn as shares of their group; None when every count is zero."""
    shares = [(name, [count / sum(counts) for count in counts]) for name, counts in groups if sum(counts) > 0]
    if not shares:
        return None
    y_ticks = ticks(0.0, 100 * max(max(values) for _, values in shares), 5)
    y_axis = _Axis(y_ticks[0], y_ticks[-1])
    x_axis = _Axis(edges[0], edges[-1])
    bars = []
    for group, (name, values) in enumerate(shares):
        for bin_index, value in enumerate(values):
            left, right = 100 * x_axis.share(edges[bin_index]), 100 * x_axis.share(edges[bin_index + 1])
            width = 0.86 * (right - left) / len(shares)
            height = 100 * y_axis.share(100 * value)
            place = f"{x_name} {edges[bin_index]:.2f} to {edges[bin_index + 1]:.2f}"
            start = left + 0.07 * (right - left) + group * width
            bars.append(Bar(start, 100 - height, width, height, group + 1, f"{name}: {value:.1%} of tokens, {place}"))
    means = [
        f"{name}: mean {sum(v * (edges[i] + edges[i + 1]) / 2 for i, v in enumerate(values)):.2f}."
        for name, values in shares
    ]
    return Chart(
        title=title,
        unit=unit,
        x_name=x_name,
        summary=" ".join(means),
        x_ticks=_x_ticks(ticks(edges[0], edges[-1], 6), x_axis),
        y_ticks=_y_ticks(y_ticks, y_axis),
        bars=tuple(bars),
        legend=tuple((name, group + 1) for group, (name, _) in enumerate(shares)),
    )


def path_chart(
    title: str, unit: str, x_name: str, points: Sequence[tuple[float, float, str]], note: str
) -> Chart | None:
    """The way of a run through two measures, (x, y, label) in the order reached; None for fewer than three."""
    finite = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if len(finite) < 3:
        return None
    x_ticks = ticks(min(0.0, *(x for x, _, _ in finite)), max(0.0, *(x for x, _, _ in finite)), 5)
    y_ticks = ticks(min(y for _, y, _ in finite), max(y for _, y, _ in finite), 5)
    x_axis, y_axis = _Axis(x_ticks[0], x_ticks[-1]), _Axis(y_ticks[0], y_ticks[-1])
    places = [(100 * x_axis.share(x), 100 - 100 * y_axis.share(y)) for x, y, _ in finite]
    named = {0, len(finite) - 1, len(finite) // 2}
    dots = tuple(
        Dot(px, py, f"{label}: {x_name} {x:.3g}, {unit} {y:.3g}", label if index in named else "")
        for index, ((px, py), (x, y, label)) in enumerate(zip(places, finite, strict=True))
    )
    path = "M" + "L".join(f"{10 * px:.1f} {10 * py:.1f}" for px, py in places)
    return Chart(
        title=title,
        unit=unit,
        x_name=x_name,
        summary=" ".join(dot.text + "." for dot in dots),
        x_ticks=_x_ticks(x_ticks, x_axis),
        y_ticks=_y_ticks(y_ticks, y_axis),
        lines=(Line(title, 1, path, dots=dots),),
        note=note,
    )


def _steps_axis(steps: Sequence[float]) -> _Axis:
    """From zero, unless the run's steps begin far from it (a metrics file that starts at a resume)."""
    first, last = min(steps), max(steps)
    if first <= 0.2 * last:
        first = 0
    return _Axis(first, last) if last > first else _Axis(first - 1, last + 1)


def _line(series: Series, x_axis: _Axis, y_axis: _Axis) -> Line:
    def place(x: float, y: float) -> str:
        return f"{1000 * x_axis.share(x):.1f} {1000 - 1000 * y_axis.share(y):.1f}"

    drawn = series.drawn
    path = "M" + "L".join(place(bucket.x, bucket.mean) for bucket in drawn)
    band = ""
    if any(bucket.high > bucket.low for bucket in drawn):
        upper = [place(bucket.x, bucket.high) for bucket in drawn]
        lower = [place(bucket.x, bucket.low) for bucket in reversed(drawn)]
        band = "M" + "L".join([*upper, *lower]) + "Z"
    dots: tuple[Dot, ...] = ()
    if series.dotted or len(drawn) <= DOTTED_POINTS:
        dots = tuple(
            Dot(
                100 * x_axis.share(bucket.x),
                100 - 100 * y_axis.share(bucket.mean),
                f"{series.name}, step {bucket.x:.0f}: {bucket.mean:.4g}",
            )
            for bucket in drawn
        )
    return Line(series.name, series.colour, path, band, dots)


def _described(series: Series) -> str:
    first, last = series.drawn[0], series.drawn[-1]
    low, high = min(bucket.low for bucket in series.drawn), max(bucket.high for bucket in series.drawn)
    reach = f"lowest {low:.4g}, highest {high:.4g}"
    if series.deviations is not None:
        reach = f"one deviation to either side reaches from {low:.4g} to {high:.4g}"
    return f"{series.name}: {first.mean:.4g} at step {first.x:.0f}, {last.mean:.4g} at step {last.x:.0f}, {reach}."


def _x_ticks(values: Sequence[float], axis: _Axis) -> tuple[Tick, ...]:
    labels = tick_labels(values)
    return tuple(Tick(100 * axis.share(value), label) for value, label in zip(values, labels, strict=True))


def _y_ticks(values: Sequence[float], axis: _Axis) -> tuple[Tick, ...]:
    labels = tick_labels(values)
    return tuple(Tick(100 - 100 * axis.share(value), label) for value, label in zip(values, labels, strict=True))
