"""What to do about a job now: a value that reconciler.py carries out."""

from dataclasses import dataclass

from ytrain_api.status import Status
from ytrain_operator.manifests.ownership import Manifest
from ytrain_operator.status.events import Event


@dataclass(frozen=True, slots=True)
class Deletion:
    """A pod to delete, if it is still the same one."""

    name: str
    uid: str
    at_once: bool = False
    """Without the word of its node, which is silent."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Carried out in this order; doing it twice is the same as doing it once."""

    surroundings: tuple[Manifest, ...] = ()
    """Children that pods need, to be as they are here."""
    pods: tuple[Manifest, ...] = ()
    """To be made."""
    status: Status | None = None
    """None: as it is."""
    events: tuple[Event, ...] = ()
    delete: tuple[Deletion, ...] = ()
    delete_job: bool = False
    again_after: float | None = None
    """Seconds until time alone can change the plan; None: an event will."""
