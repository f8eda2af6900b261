"""Events: what changed, as `kubectl describe` shows it. They follow from two statuses, so nothing is told twice."""

from dataclasses import dataclass

from ytrain_api.status import Status
from ytrain_operator.observed import Observed


@dataclass(frozen=True, slots=True)
class Event:
    """What `kubectl describe` shows of a change."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


_WAITS = ("PodsStarting", "PodsRunning", "Queued", "Suspended", "Stopping", "Ending", "Succeeded")
"""Reasons of Ready that need nobody's attention."""


def events(observed: Observed, after: Status) -> tuple[Event, ...]:
    """Events of going from the observed status to another one."""
    before = observed.status
    told = []
    if after.phase != before.phase and after.phase != "Failed":
        told.append(Event("Normal", after.phase or "", _ready(after)[1]))
    if after.phase == "Failed" and before.phase != "Failed":
        told.append(Event("Warning", "Failed", _message(after, "Failed")))
    elif after.failure is not None and after.failure != before.failure:
        told.append(Event("Warning", after.failure.failure_class or "Failure", _failure(after)))
    reason, message = _ready(after)
    if reason not in _WAITS and reason != _ready(before)[0] and after.phase != "Failed":
        told.append(Event("Warning", reason, message))
    return tuple(told)


def _ready(status: Status) -> tuple[str, str]:
    return next(((each.reason, each.message) for each in status.conditions if each.type == "Ready"), ("", ""))


def _message(status: Status, kind: str) -> str:
    return next((each.message for each in status.conditions if each.type == kind), "")


def _failure(status: Status) -> str:
    failure = status.failure
    assert failure is not None
    return ". ".join(part.rstrip(".") for part in (failure.message, failure.hint) if part)
