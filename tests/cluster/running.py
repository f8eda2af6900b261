"""The components that an `up` has started: their logs, and whether one has ended."""

import subprocess
from pathlib import Path

from tests.cluster.control_plane import Component
from tests.cluster.machines import Machine
from tests.cluster.processes import identify
from tests.cluster.state import State


class Running:
    """Starts components on machines, notes them in the record, and says which one has ended."""

    def __init__(self, record: State, logs: Path) -> None:
        self._record = record
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, machine: Machine, part: Component) -> None:
        """Start a component; its log is LOGS/COMPONENT.log, or LOGS/NODE-COMPONENT.log on a node."""
        name = part.name if machine.name == "control-plane" else f"{machine.name}-{part.name}"
        process = machine.start(part.command, self._logs / f"{name}.log")
        self._processes[name] = process
        self._record.components[name] = identify(process.pid)
        self._record.save()

    def trouble(self) -> str:
        """What to say about components that have ended; empty while all run."""
        return "\n".join(
            last_words(name, process.returncode, self._logs / f"{name}.log")
            for name, process in self._processes.items()
            if process.poll() is not None
        )


def last_words(name: str, code: int, log: Path) -> str:
    """How a component ended and the end of its log."""
    end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    return f"{name} ended with code {code}; the end of {log}:\n{end}"
