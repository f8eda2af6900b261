"""Starts, asks and ends the process of a vLLM engine, which runs `worker.py`.

vLLM gets an interpreter of its own: it sets up torch, threads and torch.distributed for itself, and would disturb the
rank that trains.
"""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ytrain.rl.vllm.messages import Continuation, EngineSettings, Failed, Question
from ytrain_api.errors import SpecError, TrainingError, TransientError

INHERITED = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "PYTHONPATH", "TZ", "VIRTUAL_ENV")
INHERITED_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "TORCHINDUCTOR_", "TRITON_", "VLLM_", "XDG_")
"""With INHERITED all of the environment that vLLM sees: no rank, no address of the other ranks, no token."""

DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; by itself a CPU's cache takes a share of the whole machine
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every rank's engine would sit on the same cores
    "VLLM_LOGGING_LEVEL": "WARNING",
}
FIXED = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this process is the engine's own already
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
SHOWN_LINES = 5
ENDING_SECONDS = 10.0
"""In which a process that has closed its end of the channel is gone."""

FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
"""Signals that end a process through no fault of its own."""


class VllmProcess:
    """The process and the channel to it.

    Args:
        folder: for its log and its temporary files.

    Raises:
        SpecError: vLLM cannot load the model, or not with these settings.
        TransientError: the process was killed.
        OSError: the disk is full.
    """

    def __init__(self, settings: EngineSettings, folder: Path) -> None:
        self._log = folder / "log"
        scratch = folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        self._channel: Connection[Any, Any] = Connection(ours.detach())
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "ytrain.rl.vllm.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env=engine_environment(os.environ) | {"TMPDIR": str(scratch)},
                start_new_session=True,  # a group of its own, killed as a whole; a terminal's Ctrl-C is not for it
            )
        try:
            self._ask(settings)
        except TrainingError as error:
            self.close()
            raise SpecError(
                f"spec.rl.rollout.engine: {error}\nIf vLLM cannot take the model or these settings, leave the field "
                "out: transformers samples then"
            ) from error
        except BaseException:
            self.close()
            raise

    def ask(self, question: Question) -> list[Continuation]:
        """The continuations of the question's prefixes, in order.

        Raises:
            TrainingError: the engine failed.
            TransientError: its process was killed.
            OSError: the disk is full.
        """
        answer: list[Continuation] = self._ask(question)
        return answer

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process.returncode is None:  # else the number may be another process's by now
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._channel.close()

    def _ask(self, message: object) -> Any:
        try:
            self._channel.send(message)
            answer = self._channel.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, Failed):
            if "No space left" in answer.reason:
                raise OSError(errno.ENOSPC, answer.reason)
            raise TrainingError(f"vllm failed: {answer.reason}; {self._log} shows more")
        return answer

    def _ended(self) -> TrainingError | TransientError:
        """What to tell of a process that said nothing at its end."""
        process = os.pidfd_open(self._process.pid)
        try:
            select.select([process], [], [], ENDING_SECONDS)  # does not reap it: `close` has to find its group
        finally:
            os.close(process)
        self.close()
        lines = self._log.read_text(errors="replace").strip().splitlines()[-SHOWN_LINES:]
        log = "\n  ".join([f"The end of {self._log}:", *(line[:300] for line in lines)] if lines else [])
        code = self._process.returncode
        if -code in FROM_OUTSIDE:
            memory = " (out of memory?)" if -code == signal.SIGKILL else ""
            return TransientError(
                f"vllm's process was ended by {signal.Signals(-code).name}{memory}; run the same command to go on. "
                "If memory is short, lower rl.rollout.gpuMemoryUtilization or, on a CPU, VLLM_CPU_KVCACHE_SPACE in the "
                f"environment. {log}".rstrip()
            )
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return TrainingError(f"vllm ended its process with {how}. {log}".rstrip())


def engine_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What the engine's process sees of our environment, and what is set for it."""
    inherited = {
        name: value for name, value in ours.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    return DEFAULTS | inherited | FIXED
