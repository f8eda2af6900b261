"""Waiting for conditions, with words for who waits."""

import time
from collections.abc import Callable

from tests.cluster.failures import ClusterError


def wait_for(
    what: str,
    ready: Callable[[], object],
    *,
    seconds: float = 180,
    every: float = 0.2,
    trouble: Callable[[], str] = lambda: "",
) -> None:
    """Return once `ready` answers truly.

    Raises:
        ClusterError: it has not within `seconds`, or `trouble`, asked every time too, has something to say.
    """
    end = time.monotonic() + seconds
    while not ready():
        if said := trouble():
            raise ClusterError(f"waited for {what}: {said}")
        if time.monotonic() > end:
            raise ClusterError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)
