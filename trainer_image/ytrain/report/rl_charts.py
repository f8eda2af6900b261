"""The charts of a run with rewards: what was earned, whether it could be learned from, and what it cost.

Most figures are 0 throughout in some runs (one update per step clips nothing); those charts are left out.
"""

from collections.abc import Callable, Sequence

from ytrain.report.charts import Chart, Series, line_chart
from ytrain.report.run_files import RewardFigures, StepMetrics


def rl_charts(metrics: Sequence[StepMetrics]) -> list[Chart | None]:
    """The charts in reading order, None where nothing was measured; empty for a run without rewards."""
    steps = [(m.step, m.rl) for m in metrics if m.rl]
    if not steps:
        return []

    def series(name: str, value: Callable[[RewardFigures], float | None], colour: int = 1) -> Series:
        return Series(name, [(step, value(rl)) for step, rl in steps], colour)

    reward = Series(
        "reward",
        [(step, rl.reward_mean) for step, rl in steps],
        deviations=[rl.reward_deviation for _, rl in steps],
    )
    forwarded = [
        series("in trees", lambda rl: rl.forwarded_per_leaf),
        series("each on its own", lambda rl: rl.forwarded_per_leaf_alone, colour=2),
    ]
    unusable = [
        series("cut off", lambda rl: _percent(rl.truncated_share)),
        series("without a reward", lambda rl: _percent(_share(rl.failed_rewards, rl.leaves)), colour=2),
    ]
    return [
        line_chart(
            "Reward",
            "mean of a step's answers",
            [reward],
            note="The band is one standard deviation of the answers to either side. Each step has other prompts.",
        ),
        line_chart(
            "Prompts with mixed rewards",
            "% of a step's prompts",
            [series("mixed", lambda rl: _percent(_share(rl.mixed_groups, rl.groups)))],
            from_zero=True,
            note="Only answers to one prompt that earned differently show what is better. Near 0 the prompts are too "
            "hard or too easy, or the reward is too coarse.",
        ),
        line_chart(
            "Entropy",
            "nats per sampled token",
            [series("entropy", lambda rl: rl.entropy)],
            from_zero=True,
            note="Near 0 all answers are alike and nothing is left to find.",
        ),
        _if_any(
            "KL to the start",
            "nats per trained token",
            [series("KL", lambda rl: rl.kl_to_start)],
            note="How far the policy has moved away from the model that it was.",
        ),
        _if_any(
            "Clipped tokens",
            "% of trained tokens",
            [series("clipped", lambda rl: _percent(rl.clip_fraction))],
            note="Tokens that an update has moved as far as clipLow and clipHigh let it.",
        ),
        _if_any(
            "Gap between sampler and trainer",
            "nats, mean over tokens",
            [series("gap", lambda rl: rl.log_prob_gap)],
            note="Of the log-probabilities of the same tokens. Above 0.1 the updates are off-policy.",
        ),
        line_chart(
            "Tokens forwarded per answer",
            "tokens",
            forwarded,
            from_zero=True,
            note="While sampling. Trees forward what answers share once; each on its own would forward it every time.",
        ),
        line_chart("Answer length", "tokens, mean", [series("length", lambda rl: rl.answer_tokens)], from_zero=True),
        _if_any(
            "Answers cut off or without a reward",
            "% of a step's answers",
            unusable,
            note="Cut off at rl.rollout.maxNewTokens; without a reward because the reward failed.",
        ),
        _if_any(
            "Time of a step",
            "seconds",
            [
                Series("whole step", [(m.step, m.seconds) for m in metrics if m.rl]),
                series("sampling", lambda rl: rl.sample_seconds, colour=2),
                series("scoring", lambda rl: rl.reward_seconds, colour=3),
            ],
        ),
    ]


def _if_any(title: str, unit: str, series: Sequence[Series], note: str = "") -> Chart | None:
    """A chart from 0; None where every figure is 0 throughout."""
    measured = any(y for one in series for _, y in one.points)
    return line_chart(title, unit, series, from_zero=True, note=note) if measured else None


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
