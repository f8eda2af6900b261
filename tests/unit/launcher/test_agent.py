"""What an agent passes on to its ranks when it is asked to stop from two sides."""

import asyncio
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ytrain.launcher.agent import Agent, Worker
from ytrain_api.protocol import Order

pytestmark = pytest.mark.unit


class Rank:
    """Notes the signals that it is sent."""

    alive = True

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send(self, number: int) -> None:
        self.signals.append(number)


@pytest.mark.parametrize("order_first", [True, False])
def test_ranks_hear_of_a_stop_once(order_first: bool) -> None:
    """A suspended job's pods are all sent SIGTERM, and the first of them has the launcher stop the others."""

    async def test() -> list[int]:
        worker = cast(Worker, SimpleNamespace(index=1, slots=1, address="127.0.0.1", options=Path()))
        agent = Agent(worker, cast(Any, None), heard=lambda *_: None, tell=lambda _: None)
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
