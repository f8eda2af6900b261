"""Asks every launcher how far it is, each by its own clock, and wakes its job when the answer is another one.

A job in which nothing happens costs a question now and then, and is not reconciled for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ytrain_api.protocol import LauncherStatus
from ytrain_operator.cache import Key
from ytrain_operator.work_queue import WorkQueue

Ask = Callable[[str, str], Awaitable[LauncherStatus | None]]
"""Asks the launcher at an address, with its job's token."""

MOST_A_SECOND = 30.0
"""Questions to all launchers together: with many of them, each is asked more seldom. One takes about a millisecond."""

FIRST_SECONDS = 0.5
"""Longest wait for the first answer of a launcher whose job has not begun."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Whom to ask."""

    uid: str
    """Of its pod."""
    address: str
    token: str


@dataclass(slots=True)
class _Followed:
    launcher: Launcher
    every: float
    answer: LauncherStatus | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set once the first question is over, whether there was an answer or not."""
    awaited: bool = False
    """Whether a turn of its job waits for that."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class LauncherAnswers:
    """The launchers that are followed, and the latest answer of each."""

    def __init__(self, ask: Ask, queue: WorkQueue[Key]) -> None:
        self._ask = ask
        self._queue = queue
        self._followed: dict[Key, _Followed] = {}

    def follow(self, key: Key, launcher: Launcher, every: float) -> LauncherStatus | None:
        """Ask a job's launcher every so many seconds from now on; returns its latest answer, None if it gave none."""
        known = self._followed.get(key)
        if known is None or known.launcher != launcher:
            self.leave(key)
            known = self._followed[key] = _Followed(launcher, every)
            known.task = asyncio.create_task(self._poll(key, known))
        known.every = every
        return known.answer

    async def first(self, key: Key) -> LauncherStatus | None:
        """The latest answer of a followed launcher; that of one never asked before is waited for, for a moment."""
        known = self._followed[key]
        known.awaited = True
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                await known.asked.wait()
        except TimeoutError:
            pass
        finally:
            known.awaited = False
        return known.answer

    async def fresh(self, key: Key) -> LauncherStatus | None:
        """The answer that a followed launcher gives now, because something happened that it may explain."""
        known = self._followed[key]
        known.answer = await self._ask(known.launcher.address, known.launcher.token)
        return known.answer

    def leave(self, key: Key) -> None:
        """Ask a job's launcher no more."""
        known = self._followed.pop(key, None)
        if known is not None and known.task is not None:
            known.task.cancel()

    def leave_all(self) -> None:
        """Ask nobody any more."""
        for key in list(self._followed):
            self.leave(key)

    async def _poll(self, key: Key, known: _Followed) -> None:
        while True:
            answer = await self._ask(known.launcher.address, known.launcher.token)
            before, known.answer = known.answer, answer
            known.asked.set()
            if _news(answer) != _news(before) and not known.awaited:
                self._queue.add(key)
            await asyncio.sleep(max(known.every, len(self._followed) / MOST_A_SECOND))


def _news(answer: LauncherStatus | None) -> LauncherStatus | None:
    """An answer without its time and the time that devices are held, which alone are none."""
    if answer is None:
        return None
    progress = answer.progress and answer.progress.model_copy(update={"updated_at": None})
    return answer.model_copy(update={"progress": progress, "usage": None})
