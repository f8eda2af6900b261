"""How the reward of a run moved between its first and its last steps, for the page and the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ytrain.report.run_files import StepMetrics

COMPARED_STEPS = 10
"""Steps at each end whose mean is compared, at most: one step's prompts are few, so its mean is noisy."""


@dataclass(frozen=True)
class RewardChange:
    """Mean reward of the answers sampled in the first and the last `steps` steps that had one."""

    steps: int
    first: float
    last: float

    @property
    def ends(self) -> str:
        """The steps that are compared."""
        return "first and last step" if self.steps == 1 else f"first and last {self.steps} steps"


def reward_change(metrics: Sequence[StepMetrics]) -> RewardChange | None:
    """The change; None for a run with fewer than two steps that had rewards."""
    means = [m.rl.reward_mean for m in metrics if m.rl and m.rl.reward_mean is not None]
    if len(means) < 2:
        return None
    taken = min(COMPARED_STEPS, len(means) // 2)
    return RewardChange(taken, math.fsum(means[:taken]) / taken, math.fsum(means[-taken:]) / taken)
