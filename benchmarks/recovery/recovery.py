"""How long training stands still when a process of it dies: medians over kills of ranks, agents and the launcher.

A tiny random model, two workers of one rank on this machine, a launcher, HTTP between them. Seconds are from the
SIGKILL to the next line of metrics.jsonl that a new start of the ranks wrote. It takes some minutes on two cores.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[2]
sys.path += [str(REPOSITORY), str(REPOSITORY / "tests/e2e")]
from run_folders import write_job  # noqa: E402
from tests.conftest import make_model_folder, write_chats  # noqa: E402
from tests.faults.conftest import Machines, Process  # noqa: E402


def wait(condition: Callable[[], bool]) -> float:
    """Wait for a condition; returns when it came true."""
    while not condition():
        time.sleep(0.002)
    return time.perf_counter()


class Metrics:
    """The growing metrics.jsonl of a run; a new start of the ranks replaces the file."""

    def __init__(self, run: Path) -> None:
        self._path = run / "metrics.jsonl"
        self._reached = 0

    def mark(self) -> tuple[int, int]:
        """Which file it is, and its size."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_size

    def until_new_start(self, before: tuple[int, int]) -> float:
        """When the first step of another start than `before` was written."""
        wait(lambda: self.mark()[0] not in (0, before[0]))
        begun = self.mark()
        return wait(lambda: self.mark()[1] > begun[1])

    def until_moved_on(self) -> None:
        """Wait for steps that no start before had reached: restarts that gain nothing are delayed on purpose."""
        wait(lambda: self._last() >= self._reached + 20)
        self._reached = self._last()

    def _last(self) -> int:
        return self._path.read_bytes().count(b"\n") if self._path.is_file() else 0


def job(folder: Path, model: Path) -> Path:
    settings = {
        "optimization.epochs": 200, "optimization.schedule": "constant", "checkpoint.everySteps": 50,
        "workers.deviceResource": "none", "workers.replicas": 2, "storage": {"claim": "work"}, "policy.restarts": 1000,
    }  # fmt: skip
    return write_job(folder, model, settings)


def show(what: str, seconds: list[float]) -> None:
    each = ", ".join(f"{value:.2f}" for value in sorted(seconds))
    print(f"| {what} | {median(seconds):.2f} | {each} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory(prefix="ytrain-recovery-") as name:
        folder = Path(name)
        write_chats(folder / "chats.jsonl", 2000)
        machines = Machines(folder)
        file = job(folder, make_model_folder(folder / "tiny"))
        try:
            measure(machines, file, kills)
        finally:
            machines.close()


def measure(machines: Machines, file: Path, kills: int) -> None:
    metrics = Metrics(machines.run)
    launcher = machines.launcher(file)
    workers = [machines.worker(0), machines.worker(1)]
    metrics.until_moved_on()
    print(f"median of {kills} | seconds | each |\n|---|---|---|")

    def killed(pid: int) -> float:
        metrics.until_moved_on()
        before, began = metrics.mark(), time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        return metrics.until_new_start(before) - began

    show("a rank is killed: to the next step", [killed(workers[kill % 2].ranks()[0]) for kill in range(kills)])
    show("an agent is killed: to the next step, its own start included", [
        agent_killed(machines, workers, metrics, kill % 2) for kill in range(kills)
    ])  # fmt: skip
    show("the launcher is killed: longest time between two steps", [
        launcher_killed(machines.launcher(file) if kill else launcher, metrics)
        for kill in range(kills)
    ])  # fmt: skip
    began = time.perf_counter()
    workers[0].send(signal.SIGTERM)
    workers[0].expect(143)
    show("a stop: to the end of the worker, checkpoint saved", [time.perf_counter() - began])


def agent_killed(machines: Machines, workers: list[Process], metrics: Metrics, index: int) -> float:
    metrics.until_moved_on()
    before, began = metrics.mark(), time.perf_counter()
    workers[index].send(signal.SIGKILL)
    workers[index] = machines.worker(index)
    return metrics.until_new_start(before) - began


def launcher_killed(launcher: Process, metrics: Metrics) -> float:
    """The longest pause in training from the kill until three seconds later."""
    launcher.until_it_says("running")
    launcher.send(signal.SIGKILL)
    began = last = time.perf_counter()
    longest, size = 0.0, metrics.mark()
    while time.perf_counter() - began < 3.0:
        now = time.perf_counter()
        if metrics.mark() != size:
            longest, last, size = max(longest, now - last), now, metrics.mark()
        time.sleep(0.001)
    return max(longest, time.perf_counter() - last)


if __name__ == "__main__":
    main()
