"""Forks a process for every `ytrain` command that it is asked for, so that importing torch is paid once, not each time.

A line of JSON on standard input starts a command; the folder that it names then holds `pid`, `output` (standard output
and error) and, once the process ended, `code`.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import ytrain.methods.run
import ytrain.models.gguf
import ytrain.models.merge
import ytrain.report.page
import ytrain.report.summary  # noqa: F401
from ytrain.cli import main


def serve() -> None:
    """Start commands until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        if os.fork() == 0:
            supervise(Path(request["folder"]), request["arguments"], Path(request["directory"]))


def supervise(folder: Path, arguments: list[str], directory: Path) -> None:
    """Run one command in a child of its own and write down how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        put(folder / "pid", os.getpid())  # before it does anything that somebody may wait for, and then send a signal
        run(folder, arguments, directory)
    _, status = os.waitpid(pid, 0)
    put(folder / "code", os.waitstatus_to_exitcode(status))
    os._exit(0)


def run(folder: Path, arguments: list[str], directory: Path) -> None:
    """The command itself; like a process of its own it ends with an exit code, or a traceback and 1."""
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(folder / "output", os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(directory)
    sys.argv = ["ytrain", *arguments]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def put(path: Path, value: int) -> None:
    """Write whole or not at all: someone waits for the file."""
    partial = path.with_suffix(".partial")
    partial.write_text(str(value))
    partial.replace(path)


if __name__ == "__main__":
    serve()
