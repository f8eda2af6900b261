"""The agent of one worker: reports its ranks to the launcher, and makes them what the launcher orders."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ytrain.launcher.addresses import free_port, interface
from ytrain.launcher.coordinator import PREEMPTED, Refused
from ytrain.launcher.rank import RankTask
from ytrain.launcher.ranks import RankProcess, warm, write_stacks
from ytrain.methods.options import RunOptions
from ytrain_api import JobFile
from ytrain_api.errors import SpecError, TransientError
from ytrain_api.protocol import Facts, Order, Ranks, Report, Spent

STACKS_SECONDS = 3.0
"""How long hanging ranks have to write down where they stand."""

REFUSED_SECONDS = 20.0
"""How long an agent asks again for an index that another one holds: a replaced one is silent by then."""

MOST_PAUSE_SECONDS = 2.0
"""Between two attempts to reach a launcher that is away."""


class Launcher(Protocol):
    """The agent's view of the launcher."""

    async def exchange(self, report: Report) -> Order:
        """Report and be ordered; answers at once if there is news, else after a moment.

        Raises:
            Refused: the launcher does not want this agent.
            ConnectionError: it cannot be reached now.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What an agent runs, and where."""

    job: str
    job_file: JobFile
    index: int
    slots: int
    address: str
    options: RunOptions


class Agent:
    """One worker. `heard` gets what its ranks tell, by rank; `tell` gets lines of its own."""

    def __init__(
        self,
        worker: Worker,
        launcher: Launcher,
        *,
        heard: Callable[[int, dict[str, Any]], None],
        tell: Callable[[str], None],
    ) -> None:
        self._worker = worker
        self._launcher = launcher
        self._heard = heard
        self._tell = tell
        self._incarnation = secrets.token_hex(8)
        self._processes: list[RankProcess] = []
        self._generation = 0
        self._ranks = 0
        self._order = 0
        self._stop: signal.Signals | None = None
        self._signalled = False
        """Whether the ranks of this generation were asked to stop."""
        self._changed = asyncio.Event()
        self._began = time.monotonic()
        self._counted = 0.0
        self._spent: Spent | None = None

    def stop(self, number: signal.Signals) -> None:
        """Ask this worker's ranks to save and end; they tell the others. Asked again, end them at once."""
        if self._stop is not None:
            for process in self._processes:
                process.send(signal.SIGKILL)
            os._exit(128 + number)
        self._stop = number
        self._signal_once()  # the launcher may have ordered it already: a second signal ends ranks without saving
        self._changed.set()

    async def run(self) -> int:
        """Serve until the job is over; returns its exit code."""
        await warm()
        refused_since: float | None = None
        pause, clock = 0.1, asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            try:
                order = await self._exchange()
            except Refused as refused:
                await self._end_ranks()
                refused_since = refused_since or clock()
                if refused.final:
                    raise SpecError(str(refused)) from None
                if clock() - refused_since > REFUSED_SECONDS:
                    # It may be a replacement, and who holds the index lives on a node that lost only its kubelet.
                    raise TransientError(str(refused)) from None
                await self._wait(MOST_PAUSE_SECONDS / 2)
                continue
            except ConnectionError as error:
                saved = self._stop is not None and not any(process.alive for process in self._processes)
                if saved and pause >= MOST_PAUSE_SECONDS:
                    return PREEMPTED  # who would say so is away, and not only busy: how the ranks ended is news to it
                if pause >= MOST_PAUSE_SECONDS and self._order >= 0:
                    self._tell(f"the launcher cannot be reached ({error}); trying again, the ranks go on")
                    self._order = -1
                pause = min(MOST_PAUSE_SECONDS, pause * 2)
                await self._wait(pause)
                continue
            pause, refused_since = 0.1, None
            if order is not None:
                self._order = order.number
                await self._obey(order)
                if order.action == "leave":
                    return order.exit_code

    async def _exchange(self) -> Order | None:
        """The launcher's answer; None if something changed here meanwhile, which it should hear first."""
        report = self._report()
        asking = asyncio.create_task(self._launcher.exchange(report))
        changing = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([asking, changing], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None
            order = await asking
            self._counted, self._spent = report.held, order.spent
            return order
        finally:
            for task in (asking, changing):
                task.cancel()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _report(self) -> Report:
        running = any(process.alive for process in self._processes)
        state = "running" if running else "ended" if self._processes else "idle"
        return Report.model_validate(
            {
                "job": self._worker.job,
                "index": self._worker.index,
                "incarnation": self._incarnation,
                "address": self._worker.address,
                "port": free_port(self._worker.address),
                "slots": self._worker.slots,
                "state": state,
                "generation": self._generation,
                "ranks": self._ranks,
                "ends": [process.end for process in self._processes if process.end is not None],
                "stopping": self._stop is not None,
                "progress": [process.progress for process in self._processes],
                "order": max(0, self._order),
                "facts": self._facts(),
                "held": time.monotonic() - self._began,
                "counted": self._counted,
                "spent": self._spent,
            }
        )

    def _facts(self) -> Facts | None:
        """What rank 0 has found, where it runs here; told again and again, so that no launcher misses it."""
        return next((process.facts for process in self._processes if process.number == 0), None)

    async def _obey(self, order: Order) -> None:
        current = order.generation == self._generation
        if order.action == "run" and not current and order.ranks is not None:
            await self._end_ranks()
            self._start(order.generation, order.ranks)
        elif order.action == "stop" and current:
            self._signal_once()
        elif order.action in ("wait", "leave") or not current:
            if order.stacks:
                await write_stacks(self._processes, within=STACKS_SECONDS)
            await self._end_ranks()

    def _start(self, generation: int, ranks: Ranks) -> None:
        worker = self._worker
        self._generation, self._ranks = generation, ranks.world_size
        self._signalled = False
        threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, len(os.sched_getaffinity(0)) // worker.slots)
        folder = worker.options.folder.stacks
        with suppress(OSError):  # the ranks say it
            folder.mkdir(parents=True, exist_ok=True)
        gloo = interface(worker.address)
        self._processes = []
        for local in range(worker.slots):
            number = ranks.first + local
            environment = {
                "RANK": str(number),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(ranks.world_size),
                "LOCAL_WORLD_SIZE": str(worker.slots),
                "MASTER_ADDR": ranks.master_address,
                "MASTER_PORT": str(ranks.master_port),
                **_visible_gpu(local),
                **({"GLOO_SOCKET_IFNAME": gloo} if gloo else {}),
            }
            task = RankTask(
                job_file=worker.job_file,
                options=worker.options,
                environment=environment,
                threads=threads,
                stacks=folder / f"rank-{number}.txt",
            )
            self._processes.append(RankProcess(number, task, self._heard, self._changed.set))
        if self._stop is not None:
            self._signal(signal.SIGTERM)

    def _signal_once(self) -> None:
        if not self._signalled:
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        self._signalled = True
        for process in self._processes:
            process.send(number)

    async def _end_ranks(self) -> None:
        """Kill at once: a rank whose peer is gone sits in a collective and hears nothing."""
        for process in self._processes:
            process.send(signal.SIGKILL)
        while any(process.alive for process in self._processes):
            self._changed.clear()
            await self._changed.wait()


def _visible_gpu(local: int) -> dict[str, str]:
    """Each rank sees its own device alone, as device 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else []
    return {"CUDA_VISIBLE_DEVICES": devices[local] if local < len(devices) else str(local)}
