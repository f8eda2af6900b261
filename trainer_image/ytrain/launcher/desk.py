"""Gives the coordinator a clock, and lets agents wait at it for a new order, over HTTP or in the same process."""

import asyncio
import time
from collections.abc import Callable

from ytrain.launcher.coordinator import Coordinator, Outcome
from ytrain_api.protocol import Order, Report

HOLD_SECONDS = 1.0
"""How long an agent without news waits for an answer: its reports are its heartbeat."""

TICK_SECONDS = 0.25

PATIENCE_SECONDS = 3.0
"""A worker that is missing for this long is worth a line."""


class Desk:
    """One coordinator, served."""

    def __init__(self, coordinator: Coordinator, tell: Callable[[str], None]) -> None:
        self.coordinator = coordinator
        self._tell = tell
        self._told: frozenset[str] = frozenset()
        self._news = asyncio.Condition()

    async def exchange(self, report: Report) -> Order:
        """Take a report and answer with the agent's order, at once if it is new to the agent.

        Raises:
            Refused: the report does not belong here.
        """
        order = self.coordinator.take(report, time.monotonic())
        await self._announce()
        if order.number == report.order:
            try:
                async with asyncio.timeout(HOLD_SECONDS), self._news:
                    await self._news.wait_for(lambda: self.coordinator.number != report.order)
            except TimeoutError:
                pass
            order = self.coordinator.order(report.index)
        if order.action == "leave":
            self.coordinator.members.pop(report.index, None)
        return order

    async def stop(self, reason: str) -> None:
        """Ask the ranks to save and end."""
        self.coordinator.stop(reason)
        await self._announce()

    async def run(self) -> Outcome:
        """Keep the clock until the job is over."""
        while self.coordinator.outcome is None:
            self.coordinator.advance(time.monotonic())
            await self._announce()
            await asyncio.sleep(TICK_SECONDS)
        return self.coordinator.outcome

    async def all_left(self, *, within: float) -> None:
        """Wait until every agent has heard how the job ended, or long enough."""
        deadline = time.monotonic() + within
        while self.coordinator.members and time.monotonic() < deadline:
            await asyncio.sleep(TICK_SECONDS)

    async def _announce(self) -> None:
        self._tell_state()
        async with self._news:
            self._news.notify_all()

    def _tell_state(self) -> None:
        """Print what changed, once."""
        coordinator = self.coordinator
        told = self._told
        if coordinator.failure is not None:
            self._told |= {coordinator.failure.message}
        if coordinator.running:
            of = coordinator.rules.workers
            short = f" with {of - coordinator.absent} of {of} workers" if coordinator.absent else ""
            self._told |= {f"generation {coordinator.generation}: running{short}"}
            if coordinator.regrouping:
                self._told |= {f"generation {coordinator.generation}: saves, to go on with workers that have come"}
        elif coordinator.outcome is None and coordinator.missing and coordinator.waited() > PATIENCE_SECONDS:
            self._told |= {coordinator.waiting_for()}
        for text in sorted(self._told - told, key=lambda text: text.startswith("generation")):
            self._tell(text)
