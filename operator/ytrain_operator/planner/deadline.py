"""Deadlines: how long a job may wait for its pods and how long it may take, the time that it was suspended left out."""

from dataclasses import dataclass

from ytrain_api.status import Timing
from ytrain_api.units import Duration
from ytrain_operator.observed import Observed
from ytrain_operator.timestamps import from_text

ACTIVE = ("Pending", "Starting", "Running", "Saving")


@dataclass(frozen=True)
class Overdue:
    """A deadline that has passed."""

    reason: str
    message: str


def overdue(observed: Observed) -> Overdue | None:
    for reason, field, limit, spent in _deadlines(observed):
        if spent >= limit.seconds:
            return Overdue(reason, f"policy.{field}: {limit} has passed")
    return None


def next_deadline(observed: Observed) -> float | None:
    """Seconds until a deadline passes."""
    return min((limit.seconds - spent for _, _, limit, spent in _deadlines(observed)), default=None)


def _deadlines(observed: Observed) -> list[tuple[str, str, Duration, float]]:
    """The deadlines that count now, each with the time that was spent of it."""
    policy, status = observed.job.spec.policy, observed.status
    since = from_text(status.phase_since)
    if status.phase not in ACTIVE or since is None or observed.job.spec.suspend:
        return []
    here = (observed.now - since).total_seconds()
    found = []
    if policy.active_deadline is not None:
        timing = status.timing or Timing()
        before = timing.pending + timing.starting + timing.training + timing.saving
        found.append(("DeadlineExceeded", "activeDeadline", policy.active_deadline, before + here))
    if policy.pending_deadline is not None and status.phase == "Pending":
        found.append(("NotPlaced", "pendingDeadline", policy.pending_deadline, here))
    return found
