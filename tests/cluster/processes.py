"""Processes that are started so that none is ever lost, and found again by pid and start time.

A pid alone may have gone to somebody else meanwhile; together with the start time it names one process until the
machine is started anew.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.waiting import wait_for

ENVIRONMENT = {
    # A proxy or a GODEBUG of the person's shell has no business in a cluster.
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    # Garbage is collected less often than by default (100): that was a fifth of the API server's processor time.
    "GOGC": "400",
}


@dataclass(frozen=True)
class ProcessId:
    """A process on this machine, as it is written into the state file."""

    pid: int
    started: int
    """Field 22 of /proc/PID/stat: clock ticks from the machine's start to the process's start."""

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that only waits to be reaped does not."""
        return start_time(self.pid) == self.started

    def kill(self) -> None:
        """End it at once and wait until it is gone."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Wait until it is gone."""
        wait_for(f"process {self.pid} to end", lambda: not self.alive, every=0.02)


def identify(pid: int) -> ProcessId:
    """Name a running process for later."""
    started = start_time(pid)
    assert started is not None, f"process {pid} ended before it was identified"
    return ProcessId(pid, started)


def start_time(pid: int) -> int | None:
    """When a process started, None if there is none or it is a zombie."""
    try:
        # The command's name, in brackets, may hold spaces and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def child_of(pid: int) -> int | None:
    """The one child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def spawn(
    command: Sequence[str | Path],
    log: Path,
    record: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    inside: Sequence[str | Path] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that goes to work only after `record` has written it down.

    A shell waits for a line on its standard input and becomes the program then. If this process dies before, the pipe
    closes, the shell reads nothing and ends: nothing runs that is not on record. `inside` is what enters namespaces
    before, or makes them.
    """
    gate = ["sh", "-c", 'read -r go || exit 0; exec "$@" </dev/null', "gate"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*inside, *gate, *command], stdin=subprocess.PIPE, stdout=output, stderr=output, cwd="/", env=ENVIRONMENT,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    record(process)
    process.stdin.write(b"go\n")
    process.stdin.close()
    return process
