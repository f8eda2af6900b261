"""Launchers, workers and jobs of several ranks as real processes, and what is done to them."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_job
from tests.conftest import write_chats
from tests.ports import held_port

LIMIT_SECONDS = 900.0
"""After which a condition that was waited for counts as never coming true."""

YTRAIN = Path(sys.executable).with_name("ytrain")


def wait_until(condition: Callable[[], Any], describe: Callable[[], str]) -> None:
    """Wait for a condition."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < LIMIT_SECONDS, f"did not come true: {describe()}"
        time.sleep(0.01)


class Process:
    """A command in a process of its own."""

    def __init__(self, log: Path, prefix: list[str], arguments: list[str], environment: dict[str, str]) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [*prefix, str(YTRAIN), *arguments],
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def until(self, condition: Callable[[], Any]) -> "Process":
        wait_until(lambda: condition() or not self.running, lambda: self.output)
        assert condition(), f"ended before:\n{self.output}"
        return self

    def until_it_says(self, words: str) -> "Process":
        return self.until(lambda: words in self.output)

    def send(self, number: signal.Signals) -> "Process":
        os.kill(self.pid, number)
        return self

    def expect(self, code: int, *words: str) -> str:
        wait_until(lambda: not self.running, lambda: self.output)
        missing = [word for word in words if word not in " ".join(self.output.split())]
        assert self._process.returncode == code and not missing, (
            f"{self._process.returncode}, {missing}:\n{self.output}"
        )
        return self.output

    def ranks(self) -> list[int]:
        """Pids of this agent's ranks, in the order of their start."""
        servers = [pid for pid in children(self.pid) if "forkserver" in command_line(pid)]
        return sorted(pid for server in servers for pid in children(server))

    def descendants(self) -> list[int]:
        found, todo = [], [self.pid]
        while todo:
            below = children(todo.pop())
            found += below
            todo += below
        return found


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Machines:
    """Starts commands in one folder and sees that nothing of them is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex())
        self._held = ExitStack()
        self.port = self._held.enter_context(held_port())
        self._processes: list[Process] = []
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "YTRAIN_CACHE": str(folder / "cache")}

    def start(self, *arguments: str | Path, prefix: list[str] | None = None) -> Process:
        log = self.folder / f"log-{len(self._processes)}"
        process = Process(log, prefix or [], [str(a) for a in arguments], self.environment)
        self._processes.append(process)
        return process

    def here(self, job: Path, processes: int, run: Path | None = None) -> Process:
        """`ytrain run --processes`."""
        return self.start("run", job, "--workdir", run or self.run, "--processes", str(processes))

    def launcher(self, job: Path, *more: str | Path, **options: Any) -> Process:
        arguments = ["--token-file", self.token, "--listen", f"127.0.0.1:{self.port}", "--workdir", self.run]
        return self.start("launcher", job, *arguments, *more, **options)

    def worker(self, index: int, *more: str | Path, token: Path | None = None, **options: Any) -> Process:
        url = f"http://127.0.0.1:{self.port}"
        arguments = ["--launcher", url, "--index", str(index), "--token-file", token or self.token]
        return self.start("worker", *arguments, "--workdir", self.run, "--base-dir", self.folder, *more, **options)

    def close(self) -> None:
        left = []
        for process in self._processes:
            below = process.descendants()
            if process.running:
                process.send(signal.SIGKILL)
                for pid in below:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)  # a test that failed may have left it stopped
                left += [pid for pid in below if not ends(pid)]
        self._held.close()
        assert not left, f"processes {left} outlived their agent"


def ends(pid: int) -> bool:
    try:
        wait_until(lambda: not alive(pid), lambda: str(pid))
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        return False
    return True


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    write_chats(tmp_path / "chats.jsonl", 20)
    started = Machines(tmp_path)
    yield started
    started.close()


def job(machines: Machines, model: Path, *, workers: int = 1, name: str = "tiny", **changes: Any) -> Path:
    """A job of 200 steps of one learning rate, with a checkpoint every 20: long enough to be caught in the middle."""
    settings: dict[str, Any] = {
        "optimization.epochs": 40,
        "optimization.schedule": "constant",
        "optimization.warmupFraction": 0,
        "checkpoint.everySteps": 20,
        "workers.deviceResource": "none",
    }
    if workers > 1:
        settings |= {"workers.replicas": workers, "storage": {"claim": "work"}}
    named = {path.replace("__", "."): value for path, value in changes.items()}
    return write_job(machines.folder, model, settings | named, name=name)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """The run folder of the job, trained by two ranks without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_chats(folder / "chats.jsonl", 20)
    machines = Machines(folder)
    machines.here(job(machines, model_folder), 2).expect(0, "done, 200 steps")
    machines.close()
    return machines.run
