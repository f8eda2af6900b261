"""A queue of keys: a key waits once however often it is added, is worked on by one worker at a time, and comes again
after a while when it is told to; one that fails comes again ever later. News come in bursts (three pods are made,
placed and started): a key that was worked on rests a moment, and what is added meanwhile is one more turn.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_RETRY, LONGEST_RETRY = 0.5, 60.0
"""Seconds until a key that failed comes again: at first and at last."""

REST = 0.2
"""Seconds between two turns of a key."""


class WorkQueue(Generic[K]):
    """As controller-runtime's, in one event loop."""

    def __init__(self) -> None:
        self._first: deque[tuple[K, float]] = deque()
        self._ready: deque[tuple[K, float]] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        """Added while they are worked on, or rest."""
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._taken_at = 0.0
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._first) + len(self._ready)

    def stands(self) -> float:
        """Seconds for which keys have been waiting and none was taken."""
        since = [waiting[0][1] for waiting in (self._first, self._ready) if waiting]
        return asyncio.get_running_loop().time() - max(min(since), self._taken_at) if since else 0.0

    def add(self, key: K, *, first: bool = False) -> None:
        """Work on a key as soon as possible; before all others if it is to be the first."""
        self._disarm(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            (self._first if first else self._ready).append((key, asyncio.get_running_loop().time()))
            self._news.set()

    async def get(self) -> tuple[K, float]:
        """The next key, and for how many seconds it waited; the caller says `done` or `failed` with it."""
        while not len(self):
            self._news.clear()
            await self._news.wait()
        key, since = (self._first or self._ready).popleft()
        self._waiting.discard(key)
        self._working.add(key)
        self._taken_at = asyncio.get_running_loop().time()
        return key, self._taken_at - since

    def failures(self, key: K) -> int:
        """How often in a row it could not be worked on."""
        return self._failures.get(key, 0)

    def done(self, key: K, again_after: float | None = None) -> None:
        """A key was worked on; it comes again after some seconds, or when it is added."""
        self._failures.pop(key, None)
        left = None if again_after is None else max(0.0, again_after - REST)
        asyncio.get_running_loop().call_later(REST, self._finish, key, left)

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
