"""Job files around the small model, and `ytrain check` in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import write_chats

from ytrain.cli import main
from ytrain.methods.check import Check, check
from ytrain.methods.options import RunOptions
from ytrain.training.run_folder import RunFolder
from ytrain_api import load_job


@dataclass(frozen=True)
class Place:
    """A folder with a job file, which names 20 chats beside it."""

    folder: Path
    job: dict[str, Any]

    @property
    def file(self) -> Path:
        return self.folder / "job.yaml"

    def write(self, **spec: Any) -> Path:
        """Write the job file, `spec` replacing whole blocks."""
        self.file.write_text(yaml.safe_dump(self.job | {"spec": self.job["spec"] | spec}))
        return self.file

    def check(self, processes: int = 1, **spec: Any) -> Check:
        """What the library finds."""
        job_file = load_job(self.write(**spec))
        options = RunOptions(
            folder=RunFolder(self.folder / "run"),
            base_dir=self.folder,
            claims={},
            device="cpu",
            resume="auto",
            cache=self.folder / "cache",
        )
        return check(job_file, options, torch.device("cpu"), processes)


@pytest.fixture
def place(tmp_path: Path, model_folder: Path) -> Place:
    """A job without a fault: 12 steps of a small model."""
    write_chats(tmp_path / "chats.jsonl", 20)
    spec = {
        "model": {"source": f"file://{model_folder}"},
        "data": {"train": [{"source": "file://./chats.jsonl"}], "maxTokens": 256},
        "sft": {},
        "optimization": {"batchSequences": 5},
    }
    head = {"apiVersion": "ytrain.io/v1alpha1", "kind": "YTrainJob", "metadata": {"name": "small"}}
    return Place(tmp_path, head | {"spec": spec})


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def ytrain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """The command line, in this process."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setenv("YTRAIN_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(sys, "argv", ["ytrain", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    return run
