"""How often a launcher is asked for progress: often while a job is young and somebody watches, seldom later."""

from ytrain_operator.observed import Observed
from ytrain_operator.timestamps import from_text

_INTERVALS = ((300.0, 3.0), (3600.0, 10.0))
_LATER = 30.0


def poll_after(observed: Observed) -> float | None:
    """Seconds until the launcher is asked again; None while there is none that could answer."""
    launcher = observed.launcher
    if launcher is None or not launcher.running or launcher.deleting:
        return None
    started = from_text(observed.status.phase_since)
    age = (observed.now - started).total_seconds() if started else 0.0
    return next((interval for until, interval in _INTERVALS if age < until), _LATER)
