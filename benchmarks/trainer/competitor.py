"""Runs one competitor in a process of its own and measures it from outside, the same way whoever it is (Linux).

A competitor appends a line with `tokens` and `seconds` to its `metrics.jsonl` after every optimizer step.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    """Steady state: every optimizer step but the first, without loading, tokenising, evaluating and saving."""

    steps: int
    tokens: int
    """Processed, padding not counted; or whatever else the caller counts."""
    seconds: float
    cpu_seconds: float
    """User and system time of the process: on a machine that others use too, steadier than the wall clock."""
    peak_bytes: int
    """Largest resident set of the process, from start to end."""
    total_seconds: float
    """Of the whole process."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_cpu_second(self) -> float:
        return self.tokens / self.cpu_seconds


def run(
    command: list[str],
    metrics: Path,
    environment: dict[str, str],
    log: Path,
    *,
    tokens: Callable[[dict[str, Any]], int] = lambda step: int(step["tokens"]),
) -> Measurement:
    """Runs the command to its end.

    Args:
        metrics: the file that the command will write a line to after each step; it must not exist yet.
        environment: added to this process's own.
        log: gets everything that the command prints.
        tokens: how many tokens a line counts.

    Raises:
        SystemExit: the command failed; its last lines are shown.
    """
    assert not metrics.exists(), metrics
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    cpu_at_step: list[float] = []
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            cpu, lines = _cpu_seconds(process.pid), _lines(metrics)
            cpu_at_step += [cpu] * (lines - len(cpu_at_step))
            time.sleep(_POLL_SECONDS)
        cpu_at_step += [_cpu_seconds(process.pid)] * (_lines(metrics) - len(cpu_at_step))
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])
        sys.exit(f"{tail}\n{' '.join(command)}\nended with {process.returncode}; the whole output is in {log}")
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    steady = steps[1:]
    return Measurement(
        steps=len(steady),
        tokens=sum(tokens(step) for step in steady),
        seconds=sum(step["seconds"] for step in steady),
        cpu_seconds=cpu_at_step[-1] - cpu_at_step[0],
        peak_bytes=usage.ru_maxrss * 1024,
        total_seconds=time.perf_counter() - start,
    )


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
