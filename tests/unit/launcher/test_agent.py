"""An agent that is asked to stop: its ranks hear of it once, the launcher hears how they ended."""

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ytrain.launcher import agent as agent_module
from ytrain.launcher.agent import Agent, Worker
from ytrain.launcher.coordinator import Refused
from ytrain.launcher.ranks import LAST_LINES, LONGEST_LINE
from ytrain.launcher.server import MOST_BYTES
from ytrain_api.errors import SpecError, TransientError
from ytrain_api.protocol import Order, RankEnd, RankProgress, Report

pytestmark = pytest.mark.unit


WORKER = cast(Worker, SimpleNamespace(job="tiny", index=1, slots=1, address="127.0.0.1", options=Path()))


class Rank:
    """Notes the signals that it is sent."""

    number, facts, progress = 1, None, RankProgress(activity="training", step=26)

    def __init__(self, end: RankEnd | None = None) -> None:
        self.signals: list[int] = []
        self.end = end

    @property
    def alive(self) -> bool:
        return self.end is None

    def send(self, number: int) -> None:
        self.signals.append(number)


@pytest.mark.parametrize("order_first", [True, False])
def test_ranks_hear_of_a_stop_once(order_first: bool) -> None:
    """A suspended job's pods are all sent SIGTERM, and the first of them has the launcher stop the others."""

    async def test() -> list[int]:
        agent = Agent(WORKER, cast(Any, None), heard=lambda *_: None, tell=lambda _: None)
        rank = Rank()
        agent._processes = [cast(Any, rank)]
        ordered = Order(number=2, action="stop", generation=0)
        if order_first:
            await agent._obey(ordered)
            agent.stop(signal.SIGTERM)
        else:
            agent.stop(signal.SIGTERM)
            await agent._obey(ordered)
        return rank.signals

    assert asyncio.run(test()) == [signal.SIGTERM]


class BusyLauncher:
    """Cannot be reached for the first `failures` times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.heard: list[Report] = []

    async def exchange(self, report: Report) -> Order:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("429 Too Many Requests")
        self.heard.append(report)
        return Order(number=3, action="leave", generation=0, exit_code=143)


def test_a_busy_launcher_still_hears_how_ranks_ended() -> None:
    async def test() -> tuple[int, list[Report]]:
        launcher = BusyLauncher(failures=2)
        agent = Agent(WORKER, launcher, heard=lambda *_: None, tell=lambda _: None)
        agent._processes = [cast(Any, Rank(RankEnd(rank=1, exit_code=143)))]
        agent.stop(signal.SIGTERM)
        return await agent.run(), launcher.heard

    code, (report,) = asyncio.run(test())
    assert code == 143
    assert [end.exit_code for end in report.ends] == [143]


class HeldIndex:
    """A launcher at which another agent holds the index."""

    def __init__(self, *, final: bool) -> None:
        self._final = final

    async def exchange(self, _: Report) -> Order:
        raise Refused("index 1 is held by a worker at 10.0.0.2", final=self._final)


@pytest.mark.parametrize(("final", "error"), [(False, TransientError), (True, SpecError)])
def test_a_replacement_of_a_worker_that_lives_on_may_try_again(
    monkeypatch: pytest.MonkeyPatch, final: bool, error: type[Exception]
) -> None:
    """Its code is one that ends no job: the old worker trains on, on a node that lost only its kubelet."""
    monkeypatch.setattr(agent_module, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(agent_module, "MOST_PAUSE_SECONDS", 0.02)
    agent = Agent(WORKER, HeldIndex(final=final), heard=lambda *_: None, tell=lambda _: None)
    with pytest.raises(error, match="is held by"):
        asyncio.run(agent.run())


def test_the_ends_of_all_ranks_fit_into_a_report() -> None:
    """Were it refused for its size, the agent would end, and nobody learn why its ranks did."""
    lines = ["\u8bad" * LONGEST_LINE] * LAST_LINES
    ends = [RankEnd(rank=rank, exit_code=1, message="\u8bad" * 300, last_lines=lines) for rank in range(64)]
    report = Report(
        job="j", index=0, incarnation="a", address="10.0.0.1", port=1, slots=64, state="ended", generation=1, ends=ends
    )
    assert len(report.model_dump_json(by_alias=True).encode()) < MOST_BYTES
