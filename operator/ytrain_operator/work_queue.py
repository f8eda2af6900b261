"""A queue of keys: a key waits once however often it is added, is worked on by one worker at a time, and comes again
after a while when it is told to; one that fails comes again ever later.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_RETRY, LONGEST_RETRY = 0.5, 60.0


class WorkQueue(Generic[K]):
    """As controller-runtime's, in one event loop."""

    def __init__(self) -> None:
        self._ready: deque[tuple[K, float]] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        """Added while they are worked on."""
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def oldest(self) -> float:
        """Seconds that the next key has been waiting."""
        return asyncio.get_running_loop().time() - self._ready[0][1] if self._ready else 0.0

    def add(self, key: K) -> None:
        """Work on a key as soon as possible."""
        self._disarm(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append((key, asyncio.get_running_loop().time()))
            self._news.set()

    async def get(self) -> tuple[K, float]:
        """The next key, and for how many seconds it waited; the caller says `done` or `failed` with it."""
        while not self._ready:
            self._news.clear()
            await self._news.wait()
        key, since = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key, asyncio.get_running_loop().time() - since

    def done(self, key: K, again_after: float | None = None) -> None:
        """A key was worked on; it comes again after some seconds, or when it is added."""
        self._failures.pop(key, None)
        self._finish(key, again_after)

    def failed(self, key: K) -> None:
        """It could not be worked on; it comes again after a while that doubles each time."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self._finish(key, min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(count, 16)), patient=True)

    def _finish(self, key: K, again_after: float | None, *, patient: bool = False) -> None:
        self._working.discard(key)
        added = key in self._again
        self._again.discard(key)
        if added and not patient:
            self.add(key)
        elif again_after is not None:
            self._disarm(key)
            self._timers[key] = asyncio.get_running_loop().call_later(again_after, self.add, key)

    def _disarm(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
