"""Starts, asks and ends the process of a vLLM engine, which runs `worker.py`.

vLLM gets an interpreter of its own: it sets up torch, threads and torch.distributed for itself, and would disturb the
rank that trains.
"""

import os
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
from ytrain_api.errors import SpecError, TrainingError

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


class VllmProcess:
    """The process and the channel to it.

    Args:
        folder: for its log and its temporary files.

    Raises:
        SpecError: vLLM cannot load the model, or not with these settings.
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
            raise SpecError(f"spec.rl.rollout.engine: {error}") from error
        except BaseException:
            self.close()
            raise

    def ask(self, question: Question) -> list[Continuation]:
        """The continuations of the question's prefixes, in order.

        Raises:
            TrainingError: the engine failed.
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
            lines = self._log.read_text(errors="replace").strip().splitlines()[-SHOWN_LINES:]
            raise TrainingError(
                f"vllm ended its process; the end of {self._log}:\n  " + "\n  ".join(line[:300] for line in lines)
            ) from error
        if isinstance(answer, Failed):
            raise TrainingError(f"vllm failed: {answer.reason}; {self._log} shows more")
        return answer


def engine_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What the engine's process sees of our environment, and what is set for it."""
    inherited = {
        name: value for name, value in ours.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    return DEFAULTS | inherited | FIXED
