"""The job's phase, one word for people; and the time that it spent in each."""

from datetime import datetime

from ytrain_api.protocol import LauncherStatus
from ytrain_api.status import Phase, Status, Timing
from ytrain_operator.observed import Observed
from ytrain_operator.timestamps import from_text

_BUCKETS = {"Pending": "pending", "Starting": "starting", "Running": "training", "Saving": "saving"}


def phase(observed: Observed) -> Phase:
    """The phase of a job that has not ended."""
    before = observed.status.phase
    if observed.job.spec.suspend:
        return "Saving" if observed.own else "Suspended"
    if observed.concluding and before is not None:
        return before
    if observed.running_workers < observed.least_workers:
        return "Pending"
    launcher = observed.launcher
    if launcher is None or not launcher.running or observed.launcher_status is None:
        # Ranks go on without their launcher, and a launcher that does not answer just now has not stopped them.
        return before if before in ("Starting", "Running", "Saving") else "Starting" if launcher else "Pending"
    return _told(observed.launcher_status)


def _told(told: LauncherStatus) -> Phase:
    match told.state:
        case "Stopping" | "Succeeded":
            return "Saving"
        case "Running":
            if told.activity.startswith(("saving", "writing")):
                return "Saving"
            return "Running" if told.progress and told.progress.step else "Starting"
        case _:
            return "Starting"


def timing(status: Status, new: Phase, now: datetime) -> Timing | None:
    """The time spent so far; that of a phase is added when it ends."""
    since = from_text(status.phase_since)
    bucket = _BUCKETS.get(status.phase or "")
    if status.phase == new or since is None or bucket is None:
        return status.timing
    before = status.timing or Timing()
    spent = max(0, round((now - since).total_seconds()))
    return before.model_copy(update={bucket: getattr(before, bucket) + spent})
