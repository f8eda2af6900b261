"""A pool of reward processes: each runs `worker.py` in a fresh interpreter and scores one sample at a time.

A process that crashes or takes too long is killed with everything that it started; the next sample gets a new one.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ytrain.rl.rewards.sample import Failure, Sample, written
from ytrain_api.errors import SpecError

START_SECONDS = 60.0
"""Longest time for importing the user's file, which may import much."""

KEPT_OUTPUT = 2000
"""Bytes of a process's output that are kept; the rest is read and dropped."""

INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "VIRTUAL_ENV")
"""All of the environment that a reward sees: no token of the job, of a hub or of a bucket is among it."""

FIXED = {
    "OMP_NUM_THREADS": "1",  # a core for each process
    "PYTHONHASHSEED": "0",  # a resumed run scores as an uninterrupted one
    "CUDA_VISIBLE_DEVICES": "",  # the device's memory is the trainer's
}


class _Ended(Exception):
    """The process is gone, or no longer speaks our language."""


class _Tail(asyncio.Protocol):
    """Reads output and keeps its end."""

    kept = b""

    def data_received(self, data: bytes) -> None:
        self.kept = (self.kept + data[-KEPT_OUTPUT:])[-KEPT_OUTPUT:]

    def last_line(self) -> str:
        """The last line that was printed."""
        lines = self.kept.decode(errors="replace").strip().splitlines()
        return f"last output: {lines[-1][:300]}" if lines else ""


class _Worker:
    """One process."""

    def __init__(self, file: Path, function: str, seconds: float) -> None:
        self.tail = _Tail()
        self._asked = 0
        self._output: asyncio.ReadTransport | None = None
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [
                    sys.executable,
                    "-P",
                    "-B",
                    str(Path(__file__).with_name("worker.py")),
                    str(file),
                    function,
                    str(seconds),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=file.parent,
                env={name: os.environ[name] for name in INHERITED if name in os.environ} | FIXED,
                start_new_session=True,  # a group of its own, killed as a whole; a terminal's Ctrl-C is not for it
            )

    async def connect(self) -> dict[str, Any]:
        """What the process says once the file is imported."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        loop = asyncio.get_running_loop()
        self._output, _ = await loop.connect_read_pipe(lambda: self.tail, self._process.stdout)
        return await self._answer()

    async def ask(self, request: bytes) -> dict[str, Any]:
        """The answer to one request."""
        try:
            self._writer.write(request)
            await self._writer.drain()
        except OSError as error:
            raise _Ended from error
        answer = await self._answer()
        if answer.get("number") != self._asked:  # user code that forked has answered an earlier request twice
            raise _Ended
        self._asked += 1
        return answer

    async def _answer(self) -> dict[str, Any]:
        try:
            answer = json.loads(await self._reader.readline())
        except (OSError, ValueError, RecursionError) as error:  # an end, or something that is no answer
            raise _Ended from error
        if not isinstance(answer, dict):
            raise _Ended
        return answer

    async def kill(self) -> str:
        """End the process and all that it started; says how it ended."""
        if self._process.returncode is None:  # else the number may be another process's by now
            await asyncio.sleep(0)  # output that has arrived is read first
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._output is not None:
            self._output.close()
        self._writer.close()
        code = self._process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


class ProcessScorer:
    """Scores with a function of a Python file; made by `opened`."""

    def __init__(self, file: Path, function: str, *, seconds: float, processes: int) -> None:
        self.at_once = processes
        self._file, self._function, self._seconds = file, function, seconds
        self._name = f"{file.name}:{function}"
        self._idle: list[_Worker] = []

    @classmethod
    async def opened(cls, file: Path, function: str, *, seconds: float, processes: int, where: str) -> "ProcessScorer":
        """Starts a first process, which shows whether the function can be called at all; others start with the work.

        Args:
            seconds: longest time of one call.
            where: field and value, for messages.

        Raises:
            SpecError: it cannot be called.
        """
        scorer = cls(file, function, seconds=seconds, processes=processes)
        started = await scorer._start()
        if isinstance(started, Failure):
            raise SpecError(f"{where}: {': '.join(filter(None, (started.reason, started.detail)))}")
        scorer._idle.append(started)
        return scorer

    async def score(self, sample: Sample) -> float | Failure:
        """See `Scorer`."""
        request = written(sample)
        if isinstance(request, Failure):
            return request
        worker = self._idle.pop() if self._idle else await self._start()
        if isinstance(worker, Failure):
            return worker
        answered = False
        try:
            answer = await asyncio.wait_for(worker.ask(request), self._seconds)
            result = _result(answer)
            answered = True
        except TimeoutError:
            return Failure(
                f"{self._name} took longer than {self._seconds:g} s and was stopped", worker.tail.last_line()
            )
        except _Ended:
            end = await worker.kill()
            return Failure(f"{self._name} ended its process ({end})", worker.tail.last_line())
        finally:
            if answered:
                self._idle.append(worker)
            else:
                await worker.kill()
        return result

    async def close(self) -> None:
        """See `Scorer`."""
        while self._idle:
            await self._idle.pop().kill()

    async def _start(self) -> _Worker | Failure:
        try:
            worker = _Worker(self._file, self._function, self._seconds)
        except OSError as error:
            return Failure("no process could be started for the reward", str(error))
        ready = False
        try:
            answer = await asyncio.wait_for(worker.connect(), START_SECONDS)
            ready = "ready" in answer
            return worker if ready else Failure(str(answer.get("fault")), str(answer.get("detail", "")))
        except TimeoutError:
            return Failure(f"{self._file.name}: importing it took longer than {START_SECONDS:g} s")
        except _Ended:
            end = await worker.kill()
            return Failure(f"{self._file.name}: importing it ended the process ({end})", worker.tail.last_line())
        finally:
            if not ready:
                await worker.kill()


def _result(answer: dict[str, Any]) -> float | Failure:
    """Raises `_Ended` for what `worker.py` would not send: user code wrote into its channel."""
    if "failure" in answer:
        return Failure(str(answer["failure"]), str(answer.get("detail", "")))
    value = answer.get("reward")
    if not isinstance(value, float) or value - value != 0:
        raise _Ended
    return value
