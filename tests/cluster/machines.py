"""Machines: the control plane's and each node's own processes, network, mounts and host name.

A machine is a set of Linux namespaces with one process in them that does nothing. When that process is killed, the
kernel ends every other process of the machine, containers too, and takes its mounts, links, routes and iptables rules
with it. That is why `down` has little to clean up, also after a crash.
"""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.failures import ClusterError
from tests.cluster.processes import ENVIRONMENT, ProcessId, child_of, identify, spawn
from tests.cluster.waiting import wait_for

NEW_NAMESPACES = [
    "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--mount-proc", "--propagation", "slave",
    "--fork", "--kill-child=KILL",
]  # fmt: skip

REST = ["sh", "-c", "trap '' CHLD; exec sleep infinity"]
"""PID 1 of a machine. To ignore SIGCHLD is inherited by `sleep`, so that the kernel reaps the machine's orphans."""


@dataclass(frozen=True)
class Machine:
    """One running machine."""

    name: str
    first: ProcessId
    """The machine's PID 1, as seen from outside."""

    def run(self, *command: str | Path, text: str | None = None) -> str:
        """Run a command inside and return what it prints; raises ClusterError with what it said if it fails."""
        done = subprocess.run(
            [*self.entrance, *command], input=text, capture_output=True, text=True, env=ENVIRONMENT, cwd="/",
            check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise ClusterError(f"on machine {self.name}: {' '.join(map(str, command))}: {said}")
        return done.stdout

    def start(self, command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
        """Start a component inside."""
        return spawn(command, log, inside=self.entrance)

    @property
    def entrance(self) -> list[str]:
        """The command line that runs another one inside."""
        return ["nsenter", f"--target={self.first.pid}", "--mount", "--net", "--pid", "--ipc", "--uts", "--"]


def start_machine(name: str, folder: Path, record: Callable[[ProcessId], None]) -> Machine:
    """Make a machine whose /var/lib and /var/log are in `folder`, with a /run of its own."""
    lib, log = folder / "lib", folder / "log"
    for made in (lib, log):
        made.mkdir(parents=True, exist_ok=True)
    found: list[ProcessId] = []

    def record_first(process: subprocess.Popen[bytes]) -> None:
        wait_for(f"machine {name}", lambda: child_of(process.pid), every=0.01)
        pid = child_of(process.pid)
        assert pid is not None
        found.append(identify(pid))
        record(found[0])

    spawn(REST, folder / "machine.log", record_first, inside=NEW_NAMESPACES)
    machine = Machine(name, found[0])
    # containerd's shims, runc, the kubelet's device plugins and CNI have paths that no option moves: two nodes would
    # meet in them, and they would stay behind.
    machine.run("mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run")
    machine.run("mount", "--bind", lib, "/var/lib")
    machine.run("mount", "--bind", log, "/var/log")
    machine.run("hostname", name)
    machine.run("ip", "link", "set", "lo", "up")
    return machine
