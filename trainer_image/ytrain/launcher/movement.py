"""Whether the ranks of a generation move: the signs of life that they send, and for how long none has come."""

from dataclasses import dataclass, field

from ytrain_api.protocol import RankProgress, Report

HANG_FLOOR_SECONDS, HANG_FACTOR = 60.0, 20.0
"""With `hangTimeout: auto`, no step for this long, or for this many median steps if that is longer, is a hang."""


@dataclass
class Movement:
    """Of the ranks of one generation. Times are seconds of one clock, given by the caller."""

    moved_at: float
    """When a rank last did something."""
    latest: RankProgress | None = None
    """Of rank 0."""
    _beats: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def hear(self, report: Report, now: float, *, leads: bool) -> None:
        """Hear a worker; `leads` if rank 0 is one of its."""
        beats = tuple(rank.beat for rank in report.progress)
        if beats != self._beats.get(report.index):
            self._beats[report.index] = beats
            self.moved_at = now
        if leads and report.progress:
            self.latest = report.progress[0]

    def hang(self, now: float, limit: float | None) -> float | None:
        """The seconds within which a rank should have moved, if none has; None while all is well.

        Only training can hang: loading, evaluating and saving tell nothing while they go.

        Args:
            limit: of the job; None: from the median step.
        """
        latest = self.latest
        if latest is None or latest.activity != "training" or not latest.step_seconds:
            self.moved_at = now
            return None
        limit = limit or max(HANG_FLOOR_SECONDS, HANG_FACTOR * latest.step_seconds)
        return limit if now - self.moved_at > limit else None

    @property
    def left(self) -> float | None:
        """Seconds of training that are left, as far as is known."""
        latest = self.latest
        if latest is None or not latest.total_steps or not latest.step_seconds:
            return None
        return (latest.total_steps - latest.step) * latest.step_seconds
