"""The charts of a run with rewards."""

import pytest
from tests.unit.report.conftest import metrics_line, rl_figures

from ytrain.report.charts import Series
from ytrain.report.rl_charts import rl_charts
from ytrain.report.run_files import step_metrics

pytestmark = pytest.mark.unit

ALWAYS = {"Reward", "Prompts with mixed rewards", "Entropy", "Tokens forwarded per answer", "Answer length"}


def titles(*changes: dict) -> set[str]:
    lines = [metrics_line(step, rl=rl_figures(step, **one)) for step, one in enumerate(changes, start=1)]
    charts = rl_charts([step_metrics(line) for line in lines])
    return {chart.title for chart in charts if chart}


def test_a_run_without_rewards_has_none() -> None:
    assert rl_charts([step_metrics(metrics_line(1))]) == []


def test_a_run_with_all_figures_has_all_charts() -> None:
    assert titles({}, {}) == ALWAYS | {
        "KL to the start",
        "Clipped tokens",
        "Gap between sampler and trainer",
        "Answers cut off or without a reward",
        "Time of a step",
    }


@pytest.mark.parametrize("value", [0.0, None])
def test_figures_that_are_nought_throughout_have_no_chart(value: float | None) -> None:
    flat = dict.fromkeys(("klToStart", "clipFraction", "logProbGap", "truncatedShare"), value)
    assert titles(flat, flat) == ALWAYS | {"Time of a step"}
    assert "Clipped tokens" in titles(flat, flat | {"clipFraction": 0.01})


def test_figures_that_are_all_missing_draw_nothing() -> None:
    missing = dict.fromkeys(rl_figures(1))
    assert titles(missing, missing) == {"Time of a step"}


def test_shares_are_percent_and_of_their_own_whole() -> None:
    figures = rl_figures(1, mixedGroups=6, groups=8, failedRewards=9, leaves=90, truncatedShare=0.25)
    charts = rl_charts([step_metrics(metrics_line(1, rl=figures))])
    said = {chart.title: chart.summary for chart in charts if chart}
    assert "mixed: 75 at step 1" in said["Prompts with mixed rewards"]
    assert "cut off: 25 at" in said["Answers cut off or without a reward"]
    assert "without a reward: 10 at" in said["Answers cut off or without a reward"]


def test_the_band_of_a_mean_is_its_deviation() -> None:
    series = Series("reward", [(1, 2.0), (2, None), (3, 5.0)], deviations=[0.5, None, 1.0])
    assert [(b.x, b.mean, b.low, b.high) for b in series.drawn] == [(1, 2.0, 1.5, 2.5), (3, 5.0, 4.0, 6.0)]


def test_the_band_of_many_steps_is_their_mean_deviation() -> None:
    steps = 100_000
    series = Series("reward", [(step, 2.0) for step in range(steps)], deviations=[0.0, 1.0] * (steps // 2))
    assert len(series.drawn) == 160
    for bucket in series.drawn:
        assert (bucket.low, bucket.high) == pytest.approx((1.5, 2.5), abs=0.01)
