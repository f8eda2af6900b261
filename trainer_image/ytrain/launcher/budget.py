"""How often the ranks may fail in a row without a new step, and how long they wait before they start again."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ytrain_api.protocol import RankProgress

MOST_BACKOFF_SECONDS = 60.0


@dataclass
class Budget:
    """The failures of a job, of which a new step makes those before forgotten."""

    restarts: int
    """Failures in a row without a new step after which no other start follows."""
    _furthest: int = field(default=0, init=False)
    """The last step that any rank has told, of any generation."""
    _reached: int = field(default=0, init=False)
    """Most steps that a generation before this one had done."""
    _failures: int = field(default=0, init=False)

    def hear(self, progress: Iterable[RankProgress]) -> None:
        """Hear how far ranks are. The worker whose rank died is the first to tell how far all of them were."""
        self._furthest = max(self._furthest, *(rank.step for rank in progress), 0)

    def begin_at(self, step: int) -> None:
        """Ranks were found running: the steps up to this one are nobody's gain."""
        self._reached = step

    def fail(self) -> float | None:
        """Count a failure; returns the seconds before the next start, or None if the budget is spent."""
        if self._furthest > self._reached:
            self._reached, self._failures = self._furthest, 0
        self._failures += 1
        if self._failures > self.restarts:
            return None
        # The first restart is immediate: most failures do not come back.
        return 0.0 if self._failures == 1 else min(MOST_BACKOFF_SECONDS, 2.0 ** (self._failures - 2))
