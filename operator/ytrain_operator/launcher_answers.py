"""The latest answer of each launcher. Nobody waits for one that does not answer: its job comes again when it has."""

import asyncio
from collections.abc import Awaitable, Callable

from ytrain_api.protocol import LauncherStatus
from ytrain_operator.cache import Key
from ytrain_operator.observed import Pod
from ytrain_operator.work_queue import WorkQueue

Ask = Callable[[str, str], Awaitable[LauncherStatus | None]]
"""Asks the launcher at an address, with its job's token."""

PAUSE_SECONDS = 1.0
"""Between two questions to a launcher, unless something happened."""


class LauncherAnswers:
    """Questions under way, and what came of them, by the launcher pod's uid."""

    def __init__(self, ask: Ask, queue: WorkQueue[Key]) -> None:
        self._ask = ask
        self._queue = queue
        self._answers: dict[str, tuple[float, LauncherStatus | None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def latest(self, key: Key, launcher: Pod, token: str, *, fresh: bool) -> LauncherStatus | None:
        """The launcher's answer, which may be from the last time; None if it gave none.

        A new question is asked, and the job woken if the answer is another one.

        Args:
            fresh: wait for the new answer, because something happened that it may explain.
        """
        asked, answer = self._answers.get(launcher.uid, (float("-inf"), None))
        question = self._asking.get(launcher.uid)
        if fresh and question is not None:
            await asyncio.wait([question])  # it may have been asked before what happened
            question = None
        if question is None and (fresh or _now() - asked >= PAUSE_SECONDS):
            question = asyncio.create_task(self._put(key, launcher, token))
            self._asking[launcher.uid] = question
        if fresh and question is not None:
            await asyncio.wait([question])
            return self._answers[launcher.uid][1]
        return answer

    def forget(self) -> None:
        """Forget launchers of long ago; those that live are asked again."""
        self._answers.clear()

    async def _put(self, key: Key, launcher: Pod, token: str) -> None:
        assert launcher.address is not None
        asked = _now()
        before = self._answers.get(launcher.uid, (0.0, None))[1]
        answer: LauncherStatus | None = None
        try:
            answer = await self._ask(launcher.address, token)
        finally:
            self._answers[launcher.uid] = (asked, answer)
            del self._asking[launcher.uid]
        if _news(answer) != _news(before):
            self._queue.add(key)


def _news(answer: LauncherStatus | None) -> object:
    """An answer without its time and the time that devices are held, which alone are none."""
    return answer.model_dump(exclude={"progress": {"updated_at"}, "usage": True}) if answer else None


def _now() -> float:
    return asyncio.get_running_loop().time()
