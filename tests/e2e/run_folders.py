"""Job files for the small model, and what runs of them leave in their folders."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM


def write_job(directory: Path, model: Path | str, changes: dict[str, Any] | None = None, *, name: str = "tiny") -> Path:
    """A job file over `chats.jsonl` beside it; `changes` set (or with `...` remove) fields by dotted path."""
    job: dict[str, Any] = {
        "apiVersion": "ytrain.io/v1alpha1",
        "kind": "YTrainJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": f"file://{model}", "precision": "float32"},
            "data": {"train": [{"source": "file://./chats.jsonl"}], "maxTokens": 256},
            "sft": {},
            "optimization": {"learningRate": 1e-3, "epochs": 2, "batchSequences": 4},
        },
    }
    for path, value in (changes or {}).items():
        *above, last = path.split(".")
        block = job["spec"]
        for part in above:
            block = block.setdefault(part, {})
        if value is ...:
            del block[last]
        else:
            block[last] = copy.deepcopy(value)
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(job))
    return file


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file."""
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def steps_written(run: Path) -> int:
    """How many steps a run has recorded so far."""
    return len(read_lines(run / "metrics.jsonl"))


def course(run: Path) -> list[tuple[Any, ...]]:
    """Step, epoch, losses, gradient norm and labels of every step: what must be equal to the last bit."""
    names = ("step", "epoch", "loss", "weightedLoss", "learningRate", "gradientNorm", "supervisedTokens", "tokens")
    return [tuple(line[name] for name in names) for line in read_lines(run / "metrics.jsonl")]


def checkpoints(run: Path) -> list[str]:
    """Names of what lies in a run's checkpoint folder, hidden ones included."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def saved(run: Path) -> bool:
    """Whether a checkpoint is there whole; one is written while training goes on."""
    return any((run / "checkpoints").glob("step-*"))


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits `[T, V]` by transformers' own forward pass."""
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


def load_model(folder: Path) -> Any:
    """The model of a folder, by plain transformers."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
