"""The work folder of a run: who may use it, what lies where, whether there is a run to go on with."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

from ytrain.models.folder import check_writable
from ytrain_api import YTrainJob, config_digest
from ytrain_api.errors import SpecError, TransientError

Resume = Literal["auto", "never"]
LOCK, IDENTITY, STACKS, INPUTS = ".lock", ".identity", "stacks", ".inputs"
BEFORE_RANK_0 = (LOCK, STACKS, INPUTS)
"""What other ranks and agents put here, perhaps before rank 0 has looked whether the folder is free."""


class RunFolder:
    """Paths in one run's work folder, and its small JSON records, each written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job = path / "job.yaml"
        self.skipped = path / "skipped.jsonl"
        self.checkpoints = path / "checkpoints"
        self.output = path / "output"
        self.evaluation = path / "evaluation.json"
        self.result = path / "result.json"
        self.samples = path / "samples"
        """Of answers, in reinforcement learning."""
        self.vllm = path / "vllm"
        """Logs of the engines that sample answers and, during a step, the weights that they get; of each rank."""
        self.stacks = path / STACKS
        """Where hanging ranks stood."""
        self.inputs = path / INPUTS
        """Sources that are no files by themselves, such as ConfigMaps; a folder for each rank."""

    @contextmanager
    def claimed(self, *, wait_seconds: float = 0.0) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            SpecError: it cannot be written, or another process trains in it.
            TransientError: still after `wait_seconds`, such as a worker that was cut off and goes on.
        """
        check_writable(self.path, field="--workdir")
        self.path.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        with (self.path / LOCK).open("w") as lock:
            while not _locked(lock):
                if time.monotonic() >= deadline:
                    kind = TransientError if wait_seconds else SpecError
                    raise kind(f"{self.path}: another process trains in this folder; name another with --workdir")
                time.sleep(0.05)
            yield

    def finished(self, config: str) -> bool:
        """Whether a run with this configuration ended here with its output written."""
        if not self.result.is_file():
            return False
        result = read_json(self.result)
        return bool(result["state"] == "Succeeded" and result["digests"]["config"] == config)

    def _there(self) -> list[str]:
        """What lies in the folder that is not there before rank 0."""
        return [path.name for path in self.path.iterdir() if path.name not in BEFORE_RANK_0]

    def unused(self) -> bool:
        """Whether it is there and no rank 0 has looked at it, nor anybody else used it."""
        return self.path.is_dir() and not self._there()

    def unfinished_run_of(self, job: YTrainJob) -> bool:
        """Whether it holds this job's run, which has not ended well."""
        mine = (self.path / IDENTITY).is_file() and self.identity() == run_identity(job)
        return mine and not self.finished(config_digest(job))

    def check(self, identity: str, resume: Resume) -> None:
        """Refuse a folder that holds something else than this job's run.

        A run that has nothing to go on from yet may be replaced, by any job.

        Raises:
            SpecError: files that are no run, another job's run, or this job's run with `--resume never`.
        """
        if self._there() and not (self.path / IDENTITY).is_file():
            raise SpecError(f"{self.path}: is not empty and holds no run; name another folder with --workdir")
        if not self.begun():
            return
        if resume == "never":
            raise SpecError(f"{self.path}: holds a run already; remove it, or name another folder with --workdir")
        if self.identity() != identity:
            raise SpecError(
                f"{self.path}: holds the run of another job (its model, data, method or optimization differ from this "
                f"file's; {self.job.name} in it shows its own); name another folder with --workdir"
            )

    def open(self, identity: str, job_text: str) -> None:
        """Say which job's run this is; a run that begins takes over no measurement of one before it."""
        if not self.begun():
            self.evaluation.unlink(missing_ok=True)
            shutil.rmtree(self.samples, ignore_errors=True)
            # First: with anything else and without it, the folder is no run's. Once there is a checkpoint it is the
            # same, and writing it again could leave it empty, by a full disk or a kill.
            (self.path / IDENTITY).write_text(identity)
        _write_whole(self.job, job_text)

    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any(self.checkpoints.glob("step-*"))

    def identity(self) -> str:
        """Digest of what the job must keep for the run to go on."""
        return (self.path / IDENTITY).read_text()


def run_identity(job: YTrainJob) -> str:
    """Digest of what a run must share with a folder's checkpoints: a run may go on to more epochs or steps."""
    length = {"epochs": 1, "max_steps": None}
    optimization = job.spec.optimization.model_copy(update=length)
    return config_digest(job.model_copy(update={"spec": job.spec.model_copy(update={"optimization": optimization})}))


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a record whole."""
    _write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write_whole(path: Path, text: str) -> None:
    """Write under a temporary name, sync, then rename: no reader sees a half, and no loss of power leaves one."""
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
