"""Which charts a run's page shows, made from its metrics and its evaluations.

What a chart looks like is `charts.py`'s; a chart without data is left out, never drawn empty.
"""

from collections.abc import Callable, Sequence

from ytrain.report.charts import Chart, Series, histogram, line_chart, path_chart
from ytrain.report.outcome import evaluation_points, loss_change
from ytrain.report.record import RunRecord
from ytrain.report.rl_charts import rl_charts
from ytrain.report.run_files import EvaluationPoint, StepMetrics

HISTOGRAM_STEPS = 10
"""Steps at each end of the run whose token weights are compared."""


def run_charts(record: RunRecord) -> list[Chart]:
    """The charts of a run, in reading order."""
    points = evaluation_points(record.evaluation)
    charts = [_gain_and_forgetting(points), *rl_charts(record.metrics)]
    charts += [_loss(record, points), _weights(record.metrics)]
    charts += [
        line_chart(
            "Learning rate", "per step", [_series(record, "learning rate", lambda m: m.learning_rate)], from_zero=True
        ),
        line_chart(
            "Gradient norm",
            "before clipping",
            [_series(record, "gradient norm", lambda m: m.gradient_norm)],
            from_zero=True,
        ),
        line_chart(
            "Throughput",
            "tokens per second",
            [_series(record, "tokens/s", lambda m: m.tokens_per_second)],
            from_zero=True,
        ),
    ]
    return [chart for chart in charts if chart]


def _series(record: RunRecord, name: str, value: Callable[[StepMetrics], float | None], colour: int = 1) -> Series:
    return Series(name, [(metrics.step, value(metrics)) for metrics in record.metrics], colour)


def _loss(record: RunRecord, points: Sequence[EvaluationPoint]) -> Chart | None:
    # With rewards the loss is a surrogate whose gradient counts and whose value says nothing.
    series = [_series(record, "training", lambda m: None if m.rl else m.loss)]
    weighted = any(m.weighted_loss is not None and m.weighted_loss != m.loss for m in record.metrics)
    if weighted:
        series.append(_series(record, "training, token-weighted", lambda m: m.weighted_loss, colour=2))
    validation = [(point.step, point.validation.loss) for point in points if point.validation]
    series.append(Series("validation", validation, colour=3, dotted=True))
    return line_chart(
        "Loss",
        "nats per supervised token",
        series,
        note="The weighted loss is what the optimizer minimises; the unweighted one compares between runs."
        if weighted
        else "",
    )


def _weights(metrics: Sequence[StepMetrics]) -> Chart | None:
    """Token weights of the first steps against the last ones."""
    measured = [m for m in metrics if m.weight_histogram]
    if not measured:
        return None
    bins = len(measured[0].weight_histogram or ())
    taken = max(1, min(HISTOGRAM_STEPS, len(measured) // 2))
    groups = [("first", measured[:taken])]
    if len(measured) > 1:
        groups.append(("last", measured[-taken:]))
    return histogram(
        "Token weights",
        "% of supervised tokens",
        "weight",
        [(f"{name} {taken} steps" if taken > 1 else f"{name} step", _summed(part)) for name, part in groups],
        [index / bins for index in range(bins + 1)],
    )


def _summed(metrics: Sequence[StepMetrics]) -> list[int]:
    return [sum(counts) for counts in zip(*(m.weight_histogram or () for m in metrics), strict=True)]


def _gain_and_forgetting(points: Sequence[EvaluationPoint]) -> Chart | None:
    """Mean task accuracy (without tasks: the fall of validation loss) against the mean rise of retention loss."""
    if len(points) < 3:
        return None
    start = points[0]
    by_tasks = bool(start.tasks)
    way = []
    for point in points:
        lost = [
            loss_change(first, now).percent
            for first in start.retention
            for now in point.retention
            if first.name == now.name
        ]
        gained = [100 * task.accuracy for task in point.tasks]
        if not by_tasks and start.validation and point.validation:
            gained = [-loss_change(start.validation, point.validation).percent]
        if lost and gained:
            way.append((sum(lost) / len(lost), sum(gained) / len(gained), f"step {point.step}"))
    return path_chart(
        "Gain against forgetting",
        "mean task accuracy, %" if by_tasks else "fall of validation loss, %",
        "rise of retention loss, %",
        way,
        note="Up is learned, right is forgotten: the best run ends high on the left.",
    )
