"""Watches the steps of reinforcement learning: says what a person would want to know, and ends what cannot learn."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ytrain.engine.world import World
from ytrain.rl.credit import Group
from ytrain.rl.rewards import Failure
from ytrain.training.plan import Step
from ytrain_api.errors import RewardError

LARGE_GAP = 0.1
"""Mean difference of log-probabilities, in nats, between sampler and trainer, above which something is wrong: float32
has 1e-6, bfloat16 was seen to have 0.05."""

FAILED_STEPS = 3
"""Steps in a row without a single scored answer after which a run ends."""


SHOWN_REASONS = 3
"""Of the failures of a step; the others are counted."""


UNIFORM_STEPS = 20
"""Steps in a row without a mixed group that are told before the epoch is over, which may be long."""


@dataclass(kw_only=True)
class Watch:
    """Sees every step of a run; all ranks have one and call it, and the one of rank 0 speaks."""

    world: World
    note: Callable[[str], None]
    total_steps: int
    _failed_steps: int = field(default=0, init=False)
    _gap_told: bool = field(default=False, init=False)
    _mixed_since: tuple[int, int] | None = field(default=None, init=False)
    _uniform_steps: int = field(default=0, init=False)

    def see(self, step: Step, rl: Mapping[str, Any], groups: Sequence[Group]) -> None:
        """Look at the figures of a step.

        Raises:
            RewardError: no answer can be scored.
        """
        self._rewards(step, rl, groups)
        self._mixture(step, rl)
        gap = rl["logProbGap"]
        if gap is not None and not gap <= LARGE_GAP and not self._gap_told:
            self._gap_told = True
            self.note(
                f"step {step.number}: the log-probabilities of sampler and trainer differ by {gap:.3f} nats in the "
                f"mean (largest {rl['largestLogProbGap']:.2f}); updates are off-policy. Try model.precision: float32"
            )

    def _rewards(self, step: Step, rl: Mapping[str, Any], groups: Sequence[Group]) -> None:
        self._failed_steps = self._failed_steps + 1 if rl["rewardMean"] is None else 0
        if not rl["failedRewards"]:
            return
        failures = [o for group in groups for o in group.outcomes.values() if isinstance(o, Failure)]
        details = {f.reason: f.detail for f in reversed(failures)}
        counts: Counter[str] = Counter()
        for of_rank, details_of_rank in self.world.gather([Counter(f.reason for f in failures), details]):
            counts.update(of_rank)
            details = details_of_rank | details
        commonest = [
            f"{count} of them: {reason}" + (f" ({details[reason]})" if details[reason] else "")
            for reason, count in counts.most_common(SHOWN_REASONS)
        ]
        words = f"{rl['failedRewards']} of {rl['leaves']} answers got no reward; {'; '.join(commonest)}"
        if len(counts) > SHOWN_REASONS:
            words += f"; and {len(counts) - SHOWN_REASONS} more reasons"
        self.note(f"step {step.number}: {words}")
        if self._failed_steps >= FAILED_STEPS:
            raise RewardError(
                f"spec.rl.reward: no answer got a reward in {FAILED_STEPS} steps in a row; {words}. "
                "Correct the reward; try it on one record by hand"
            )

    def _mixture(self, step: Step, rl: Mapping[str, Any]) -> None:
        """Tells where a whole epoch, or many steps in a row, had no group whose rewards differ."""
        since, mixed = self._mixed_since or (step.number, 0)
        mixed += rl["mixedGroups"]
        self._mixed_since = (since, mixed)
        self._uniform_steps = 0 if rl["mixedGroups"] or self._failed_steps else self._uniform_steps + 1
        over = step.epoch == int(step.epoch) or step.number == self.total_steps
        if over:
            self._mixed_since = None
        if self._uniform_steps == UNIFORM_STEPS:
            since = step.number - UNIFORM_STEPS + 1
        elif not over or mixed or self._failed_steps:
            return
        self.note(
            f"steps {since} to {step.number}: the answers to each prompt all got the same reward, so nothing was "
            "learned. Give a reward that tells better from worse (parts of an answer, its form), take easier or "
            "harder prompts, or raise rl.rollout.chains or temperature"
        )
