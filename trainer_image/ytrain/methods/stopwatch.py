"""How long each phase of a run took: what waits and what trains are told apart."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ytrain.report.live import Progress


class Stopwatch:
    """Seconds of each phase of a run, told to the progress display as they begin."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def phase(self, key: str, words: str) -> Iterator[None]:
        """Time the block under `key`; `words` say what happens in it."""
        self._progress.phase(words)
        began = time.monotonic()
        try:
            yield
        finally:
            self.move(key, time.monotonic() - began)

    def move(self, key: str, seconds: float, *, out_of: str | None = None) -> None:
        """Count seconds for a phase, taking them from another one if they were measured inside it."""
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        if out_of is not None:
            self.seconds[out_of] -= seconds
