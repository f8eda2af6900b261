"""Opens the reward that a job names, and scores samples with it, some of them at once."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ytrain.data.workers import usable_cores
from ytrain.rl.rewards import builtin_reward
from ytrain.rl.rewards.http_endpoint import HttpScorer
from ytrain.rl.rewards.processes import ProcessScorer
from ytrain.rl.rewards.sample import Failure, Sample, Scorer
from ytrain.sources import Sources
from ytrain_api.errors import SpecError
from ytrain_api.rl import Reward

MOST_PROCESSES = 16
BEAT_SECONDS = 1.0
PYTHON_SOURCE = "spec.rl.reward.python.source"


class RewardService:
    """The open reward of a job; made by `open_rewards`."""

    def __init__(self, runner: asyncio.Runner, scorer: Scorer, beat: Callable[[], None]) -> None:
        self._runner, self._scorer, self._beat = runner, scorer, beat

    def score(self, items: Sequence[Sample]) -> list[float | Failure]:
        """A finite reward or a failure for each item, in their order. Never raises for what user code does."""
        return self._runner.run(self._score(items))

    async def _score(self, items: Sequence[Sample]) -> list[float | Failure]:
        results: list[float | Failure] = [Failure("not scored")] * len(items)
        waiting = iter(range(len(items)))

        async def take() -> None:
            for i in waiting:
                results[i] = await self._scorer.score(items[i])

        beating = asyncio.create_task(self._beat_on())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._scorer.at_once, len(items))):
                    group.create_task(take())
        finally:
            beating.cancel()
        return results

    async def _beat_on(self) -> None:
        """A slow reward is no hang: every call has a timeout of its own."""
        while True:
            self._beat()
            await asyncio.sleep(BEAT_SECONDS)


@contextmanager
def open_rewards(
    reward: Reward, sources: Sources, *, processes: int | None = None, beat: Callable[[], None] = lambda: None
) -> Iterator[RewardService]:
    """Opens a reward until the context ends. Not to be used inside a running event loop.

    Args:
        sources: resolves the file of a Python reward.
        processes: worker processes at most, for Python and built-in rewards. None: one a usable core, at most 16.
        beat: called about every second while answers are scored.

    Raises:
        SpecError: the reward's file, function, pattern or schema is wrong; the message names the field.
    """
    at_once = processes or min(usable_cores(), MOST_PROCESSES)
    with asyncio.Runner() as runner:
        scorer = runner.run(_opened(reward, sources, at_once))
        try:
            yield RewardService(runner, scorer, beat)
        finally:
            runner.run(scorer.close())


async def _opened(reward: Reward, sources: Sources, processes: int) -> Scorer:
    if reward.http is not None:
        return HttpScorer(reward.http.url, reward.http.timeout.seconds)
    if reward.builtin is not None:
        return await builtin_reward.opened(reward.builtin, processes)
    assert reward.python is not None
    uri, _, function = reward.python.source.rpartition(":")
    try:
        path = sources.resolve(uri).path
    except SpecError as error:
        raise SpecError(f"{PYTHON_SOURCE}: {error}") from error
    return await ProcessScorer.opened(
        path,
        function,
        seconds=reward.python.timeout.seconds,
        processes=processes,
        where=f"{PYTHON_SOURCE}: {reward.python.source}",
    )
