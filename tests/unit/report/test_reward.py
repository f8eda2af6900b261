"""How the reward moved between a run's ends, and the words for it."""

import pytest
from tests.unit.report.conftest import metrics_line, rl_figures

from ytrain.report.outcome import judge
from ytrain.report.reward import RewardChange, reward_change
from ytrain.report.run_files import Evaluation, step_metrics

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("means", "change"),
    [
        ([], None),
        ([0.5], None),
        ([None, 0.5, None], None),
        ([0.0, 0.5], RewardChange(1, 0.0, 0.5)),
        ([0.0, None, 9.0, 0.5], RewardChange(1, 0.0, 0.5)),
        ([0.0, 1.0, 9.0, -1.0, -3.0], RewardChange(2, 0.5, -2.0)),
        ([1.0] * 10 + [5.0] * 30 + [2.0] * 10, RewardChange(10, 1.0, 2.0)),
    ],
)
def test_the_ends_are_compared_without_overlap(means: list[float | None], change: RewardChange | None) -> None:
    lines = [metrics_line(step, rl=rl_figures(step, rewardMean=mean)) for step, mean in enumerate(means, start=1)]
    assert reward_change([step_metrics(line) for line in lines]) == change


def test_a_run_without_rewards_has_no_change() -> None:
    assert reward_change([step_metrics(metrics_line(step)) for step in range(1, 9)]) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (RewardChange(10, 0.1, 0.8), "rose from 0.100 to 0.800 (mean of the first and last 10 steps)"),
        (RewardChange(1, 0.5, 0.5), "did not rise: it went from 0.500 to 0.500 (mean of the first and last step)"),
        (RewardChange(1, 0.5, -0.5), "did not rise: it went from 0.500 to -0.500"),
    ],
)
def test_the_reward_is_a_gain_on_the_training_prompts(change: RewardChange, words: str) -> None:
    before = {"step": 0}
    for evaluation in (None, {"before": before}, {"before": before, "after": {"step": 9}}):
        outcome = judge(Evaluation.model_validate(evaluation) if evaluation else None, change)
        assert outcome.gained.startswith(f"The reward of the training prompts {words}")
        assert "easured" in outcome.gained.removeprefix(words)
