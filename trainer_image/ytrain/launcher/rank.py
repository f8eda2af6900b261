"""The process of one rank: forked from the agent's warm forkserver, it trains and tells the agent how it goes.

It ends as soon as its agent is gone, and always by `os._exit`: with gloo the interpreter's own exit may abort after a
success (research: 2 of 4 exits).
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ytrain.engine.process import prepare_process
from ytrain.launcher.failures import LOST_PEER
from ytrain.methods.options import RunOptions
from ytrain.models.folder import check_writable
from ytrain.training.stop import StopRequest, stop_on_signals
from ytrain_api import JobFile
from ytrain_api.errors import Preempted, YTrainError
from ytrain_api.protocol import Facts

AGENT_GONE = 1
BEAT_SECONDS = 1.0
"""Least time between two signs of life inside a step."""

LOCK_SECONDS = 30.0
"""How long the ranks of the generation before may take to end and let go of the run folder."""


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """What a rank's process is given."""

    job_file: JobFile
    options: RunOptions
    environment: Mapping[str, str]
    """RANK, WORLD_SIZE and the like."""
    threads: int
    stacks: Path
    """File for where the rank stands, written at SIGUSR1."""


def main(task: RankTask, channel: Connection, output: Connection) -> None:
    """Train; never returns."""
    prepare_process()
    # Its own group: a Ctrl-C at a terminal is the agent's to handle.
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(task.environment)
    threading.Thread(target=_end_with_the_agent, args=(channel,), daemon=True).start()
    progress = ChannelProgress(channel)
    code, end = 0, {"done": True}
    try:
        check_writable(task.options.folder.path, field="--workdir")
        with task.stacks.open("w") as stacks, stop_on_signals(progress.note) as stop:
            faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
            _train(task, progress, stop)
    except BaseException as error:
        code, end = _told(error)
    progress.send({"end": end})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train(task: RankTask, progress: ChannelProgress, stop: StopRequest) -> None:
    import torch

    from ytrain.engine.world import World
    from ytrain.methods.run import run_job

    torch.set_num_threads(task.threads)
    world = World.from_environment()
    world.listen()
    try:
        run_job(task.job_file, task.options, progress, stop, world, lock_seconds=LOCK_SECONDS)
    except Preempted:
        world.part()
        raise
    world.part()


def _told(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Exit code and words of a failure."""
    if isinstance(error, YTrainError):
        return error.exit_code, {"kind": type(error).__name__, "message": str(error)}
    text = f"{type(error).__name__}: {error}"
    # torch.distributed has one class for all of gloo's failures, so the words tell.
    if any(words in text for words in ("closed by peer", "reset by peer", "Connection refused", "Broken pipe")):
        return 5, {"kind": LOST_PEER, "message": text.splitlines()[0]}
    traceback.print_exception(error)
    return 1, {"kind": type(error).__name__, "message": text}


def _end_with_the_agent(channel: Connection) -> None:
    """The agent never writes: what arrives is the end of its side."""
    try:
        channel.recv_bytes()
    except (EOFError, OSError):
        os._exit(AGENT_GONE)


class ChannelProgress:
    """A run's progress, sent to the agent as JSON lines of what changed."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._beaten_at = -BEAT_SECONDS

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; an agent that is gone is noticed elsewhere."""
        with self._lock:
            try:
                self._channel.send_bytes(json.dumps(message).encode())
            except OSError:
                return

    def phase(self, name: str) -> None:
        """A new part of the run begins."""
        self.send({"activity": name, "note": f"{name} ..."})

    def activity(self, name: str) -> None:
        """What happens inside the phase."""
        self.send({"activity": name})

    def step(self, metrics: Mapping[str, Any], total_steps: int) -> None:
        """An optimizer step is done."""
        self.send({"activity": "training", "step": dict(metrics), "total": total_steps, "at": time.time()})

    def beat(self) -> None:
        """Whatever is sent is a sign of life."""
        now = time.monotonic()
        if now - self._beaten_at >= BEAT_SECONDS:
            self._beaten_at = now
            self.send({})

    def note(self, text: str) -> None:
        """Something worth a line."""
        self.send({"note": text})

    def found(self, facts: Facts) -> None:
        """What the run has found: the agent repeats it to the launcher."""
        self.send({"facts": facts.model_dump(mode="json", by_alias=True, exclude_none=True)})

    def close(self) -> None:
        """Nothing is open."""
