"""The process that runs a reward function: imports a file, then answers a line of JSON with a line of JSON.

Run as a script, with nothing of ours imported, by `processes.py`, which is the other end of standard input. User code
gets /dev/null as input; what it prints goes elsewhere and cannot mix with the answers.
"""

import importlib.util
import inspect
import itertools
import json
import math
import numbers
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ARGUMENTS = ("prompt", "answer", "record")
LONGEST_DETAIL = 300
GRACE_SECONDS = 10.0
LARGEST_REWARD = 1e12
"""The squares of gradients overflow float32 some way above."""


class Fault(Exception):
    """Why the function cannot be called."""


def main() -> None:
    """Answer until the other end closes the channel."""
    file, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=receive, args=(channel, requests), daemon=True).start()

    def send(answer: dict[str, Any]) -> None:
        channel.sendall(json.dumps(answer).encode() + b"\n")

    try:
        function = load(file, name)
    except Fault as fault:
        send({"fault": str(fault)})
        return
    send({"ready": True})
    for number in itertools.count():
        request = json.loads(requests.get())
        # Should the trainer be gone and the function hold the interpreter's lock, the kernel ends this process.
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
        answer = call(function, f"{file.name}:{name}", file, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send({"number": number, **answer})


def receive(channel: socket.socket, requests: "queue.SimpleQueue[bytes]") -> None:
    """Pass requests on; when the trainer is gone, end with everything that user code started."""
    with channel.makefile("rb") as lines:
        for line in lines:
            requests.put(line)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def load(file: Path, name: str) -> Callable[..., object]:
    """The function of a file.

    Raises:
        Fault: with what was found instead.
    """
    sys.path.append(str(file.parent))  # for its neighbours; last, so that they hide no library
    specification = importlib.util.spec_from_file_location("reward_of_the_job", file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    try:
        specification.loader.exec_module(module)
    except BaseException as error:
        raise Fault(f"importing {file.name} raised {described(error, file)}: {detail(error)}") from error
    function: Callable[..., object] | None = getattr(module, name, None)
    if not callable(function):
        found = ", ".join(functions(module)) or "none"
        raise Fault(f"{file.name} has no function {name!r} (functions there: {found})")
    if inspect.iscoroutinefunction(function):
        raise Fault(f"{name} in {file.name} is async; write it as a plain def")
    try:
        inspect.signature(function).bind(**dict.fromkeys(ARGUMENTS))
    except TypeError as error:
        raise Fault(
            f"{name}{inspect.signature(function)} in {file.name} does not take prompt, answer and record by name"
            f" ({error}). Write def {name}(prompt, answer, record)."
        ) from error
    except ValueError:
        pass  # a function of C has no signature; its first call tells
    return function


def functions(module: ModuleType) -> list[str]:
    """Names of the functions that a module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]


def call(function: Callable[..., object], name: str, file: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The reward of one request, or why there is none."""
    try:
        value = function(**request)
        # A scalar of numpy or torch; an array of one number in a list's shape is none.
        if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
            value = value.item()  # type: ignore[attr-defined]
        if not isinstance(value, numbers.Real):
            kind = "None" if value is None else f"a {type(value).__name__}"
            return {"failure": f"{name} returned {kind}, and not a number", "detail": repr(value)[:LONGEST_DETAIL]}
        reward = float(value)
    except BaseException as error:  # sys.exit too
        return {"failure": f"{name} raised {described(error, file)}", "detail": detail(error)}
    if not math.isfinite(reward):
        return {"failure": f"{name} returned {reward}, and not a finite number"}
    if abs(reward) > LARGEST_REWARD:
        return {"failure": f"{name} returned {reward:g}, beyond the {LARGEST_REWARD:g} that can be learned from"}
    return {"reward": reward}


def described(error: BaseException, file: Path) -> str:
    """Type of an exception and the last line of the user's file on its way."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
    return type(error).__name__ + (f" at {file.name}:{lines[-1]}" if lines else "")


def detail(error: BaseException) -> str:
    """Message of an exception; one whose own str() raises has one too."""
    return traceback.format_exception_only(error)[-1].strip()[:LONGEST_DETAIL]


if __name__ == "__main__":
    main()
