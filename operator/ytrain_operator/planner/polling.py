"""How often a launcher is asked for progress: often while a job is young and somebody watches, seldom later."""

from ytrain_operator.observed import Observed
from ytrain_operator.timestamps import from_text

_INTERVALS = ((300.0, 3.0), (3600.0, 10.0))
_LATER = 30.0


def poll_every(observed: Observed) -> float:
    """Seconds between two questions to the launcher."""
    started = from_text(observed.status.phase_since)
    age = (observed.now - started).total_seconds() if started else 0.0
    return next((interval for until, interval in _INTERVALS if age < until), _LATER)
