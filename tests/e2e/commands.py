"""`ytrain` commands as processes: started with arguments, sent signals, and judged by exit code and output."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 900.0
"""After which a condition that was waited for counts as never coming true."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and everything that it printed."""

    code: int
    output: str

    def expect(self, code: int, *words: str) -> "Ended":
        """Assert the exit code and what the output says, whatever the line breaks."""
        text = " ".join(self.output.split())
        missing = [word for word in words if word not in text]
        assert self.code == code and not missing, f"exit code {self.code}, missing {missing} in:\n{self.output}"
        return self


class Command:
    """A `ytrain` command in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def output(self) -> str:
        """What it printed so far."""
        path = self._folder / "output"
        return path.read_text(errors="replace") if path.is_file() else ""  # it may end within a character

    def until(self, condition: Callable[[], Any]) -> "Command":
        """Wait for a condition while the process runs."""
        code = self._folder / "code"
        began = time.monotonic()
        while True:
            ended = code.is_file()  # asked first: what it does at its end counts
            if condition():
                return self
            assert not ended, f"ended with {code.read_text()} before the condition came true:\n{self.output}"
            assert time.monotonic() - began < LIMIT_SECONDS, f"the condition did not come true:\n{self.output}"
            time.sleep(0.002)

    def send(self, number: signal.Signals) -> "Command":
        """Send a signal."""
        os.kill(int((self._folder / "pid").read_text()), number)
        return self

    def wait(self) -> Ended:
        """Wait for its end."""
        code = self._folder / "code"
        began = time.monotonic()
        while not code.is_file():
            assert time.monotonic() - began < LIMIT_SECONDS, f"did not end:\n{self.output}"
            time.sleep(0.005)
        return Ended(int(code.read_text()), self.output)


class Commands:
    """Starts `ytrain` commands in a working directory."""

    def __init__(self, server: subprocess.Popen[str], records: Path) -> None:
        self._server = server
        self._records = records
        self._count = 0

    def start(self, directory: Path, *arguments: str | Path) -> Command:
        """Start a command and return at once."""
        self._count += 1
        folder = self._records / str(self._count)
        folder.mkdir()
        request = {"folder": str(folder), "directory": str(directory), "arguments": [str(a) for a in arguments]}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Command(folder)

    def __call__(self, directory: Path, *arguments: str | Path) -> Ended:
        """Run a command to its end."""
        return self.start(directory, *arguments).wait()
