"""The ranks of one agent: started from a forkserver that has the libraries loaded already, watched, ended.

An end is noticed by the process's sentinel, at once. `torch.distributed.elastic.multiprocessing` polls, and starts by
spawn, fork or a forkserver of its own; both would cost more than the restart itself.
"""

import asyncio
import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from ytrain.launcher import rank
from ytrain.report.live import RecentRate
from ytrain_api.protocol import Facts, RankEnd, RankProgress

PRELOADED = ["torch", "transformers", "peft", "ytrain.methods.run", "ytrain.launcher.rank"]
"""Imported once, in the forkserver. None of them may start a thread or touch a GPU there."""

LAST_LINES, LONGEST_LINE = 20, 400
"""Of what a rank printed; those of all ranks of a worker go into one report, which has a largest size."""


def warm_up() -> None:
    """Start the forkserver; it imports while the agent does other things."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


async def warm() -> None:
    """Return when the forkserver has imported everything: until then it would keep a start of ranks waiting."""
    probe = multiprocessing.get_context("forkserver").Process(target=int)
    await asyncio.to_thread(probe.start)
    await asyncio.to_thread(probe.join)


class RankProcess:
    """One rank. `changed` is called when it ended; `heard` with whatever it tells."""

    def __init__(
        self,
        number: int,
        task: rank.RankTask,
        heard: Callable[[int, dict[str, Any]], None],
        changed: Callable[[], None],
    ) -> None:
        self.number = number
        self.progress = RankProgress(activity="starting")
        self.facts = Facts()
        self.end: RankEnd | None = None
        self.stack: str | None = None
        self._heard, self._changed = heard, changed
        self._stacks = task.stacks
        self._rate = RecentRate()
        self._told: dict[str, Any] = {}
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        context = multiprocessing.get_context("forkserver")
        self._channel, theirs = context.Pipe()
        output, their_output = context.Pipe(duplex=False)
        self._process: ForkServerProcess = context.Process(target=rank.main, args=(task, theirs, their_output))
        self._process.start()
        theirs.close()
        their_output.close()
        self._output = asyncio.create_task(self._read_output(output))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._read_channel)
        loop.add_reader(self._process.sentinel, self._ended)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.end is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        pid = self._process.pid
        if self.alive and pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def read_stack(self) -> str | None:
        """Where the main thread stands, once the rank has written it down."""
        text = self._stacks.read_text() if self._stacks.is_file() else ""
        main = text.rpartition("Current thread")[2].splitlines()
        return main[1].strip()[:2000] if len(main) > 1 else None

    def _read_channel(self) -> None:
        try:
            while self._channel.poll():
                self._take(json.loads(self._channel.recv_bytes()))
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._channel.fileno())

    def _take(self, message: dict[str, Any]) -> None:
        self._told |= message.get("end", {})
        changes: dict[str, Any] = {"beat": self.progress.beat + 1}
        if "activity" in message:
            changes["activity"] = message["activity"][:200]
        if "step" in message:
            step = message["step"]
            self._rate.add(step["seconds"])
            changes |= {
                "step": step["step"],
                "total_steps": message["total"],
                "epoch": step["epoch"],
                "loss": step["loss"],
                "learning_rate": step.get("learningRate"),  # a corpus job has none
                "tokens_per_second": step["tokensPerSecond"],
                "step_seconds": self._rate.remaining(1),
            }
        if "facts" in message:
            self.facts = self.facts.model_copy(update=Facts.model_validate(message["facts"]).told())
        self.progress = self.progress.model_copy(update=changes)
        self._heard(self.number, message)

    async def _read_output(self, output: Connection) -> None:
        reader = asyncio.StreamReader(limit=1 << 16)
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(os.dup(output.fileno()), "rb", buffering=0)
        output.close()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than the limit
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text[:LONGEST_LINE])
            self._heard(self.number, {"output": text})

    def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._read_channel()
        loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._finishing = asyncio.create_task(self._finish(self._process.exitcode or 0))

    async def _finish(self, code: int) -> None:
        # A grandchild may hold the output open; what is there by now is what counts.
        await asyncio.wait([self._output], timeout=0.2)
        self._output.cancel()
        told = {key: self._told.get(key) for key in ("kind", "message")}
        self.end = RankEnd(
            rank=self.number,
            exit_code=code,
            done=bool(self._told.get("done")) and code == 0,
            kind=told["kind"] and told["kind"][:200],
            message=told["message"] and told["message"][:8000],
            last_lines=list(self._lines),
            stack=self.stack,
        )
        self._changed()


async def write_stacks(processes: Sequence[RankProcess], *, within: float) -> None:
    """Have the ranks write down where they stand; one that cannot within the time has no stack."""
    for process in processes:
        process.send(signal.SIGUSR1)
    deadline = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < deadline:
        for process in processes:
            process.stack = process.read_stack()
        if all(process.stack for process in processes if process.alive):
            return
        await asyncio.sleep(0.05)
