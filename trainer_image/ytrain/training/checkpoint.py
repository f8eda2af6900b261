"""Checkpoints on disk: complete or absent, verified when read, free of pickle.

`checkpoints/step-000123/` holds `tensors.safetensors` (trained weights and optimizer state), `state.json` (where the
run is, random states) and, written last, `manifest.json` with sizes and digests. The newest one is found by reading
manifests, not by a pointer that can lie.
"""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ytrain.models.folder import file_digest, staged

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run is, and what must be the same to go on from there."""

    step: int
    epoch: float
    data_digest: str
    labels_trained: int


class Checkpoints:
    """The checkpoints of one run folder; `keep` is how many complete ones stay."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, position: Position, tensors: dict[str, Tensor]) -> Path:
        """Write a checkpoint, then remove the oldest ones; the ones before stay intact if this fails.

        Raises:
            TrainingError: the disk is full.
        """
        folder = self._folder / f"step-{position.step:06d}"
        for path in self._folder.glob("step-*"):
            if path.name >= folder.name:
                shutil.rmtree(
                    path
                )  # damaged, and passed over when the run was resumed; it must not count as the newest
        newest = (self._names() or ["none"])[-1]
        when_full = f"last complete checkpoint: {newest}. Free space, then run the same command to go on from there"
        with staged(folder, when_full=when_full) as stage:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, stage / TENSORS)
            state = {"position": asdict(position), "random": _random_state()}
            (stage / STATE).write_text(json.dumps(state))
            _write_manifest(stage)
        for name in self._names()[: -self._keep]:
            shutil.rmtree(self._folder / name)
        return folder

    def latest(self, report_damage: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is complete and undamaged; the damaged ones are reported and passed over."""
        for name in sorted((path.name for path in self._folder.glob("step-*")), reverse=True):
            problem = _problem(self._folder / name)
            if problem is None:
                return self._folder / name
            report_damage(f"checkpoint {self._folder / name} is damaged ({problem}); it is passed over")
        return None

    def _names(self) -> list[str]:
        """Names of the complete checkpoints, oldest first."""
        return sorted(path.parent.name for path in self._folder.glob(f"step-*/{MANIFEST}"))


def read_position(folder: Path) -> Position:
    """Where the run was when it saved."""
    return Position(**json.loads((folder / STATE).read_text())["position"])


def restore(folder: Path, load: Callable[[dict[str, Tensor]], None]) -> None:
    """Hand the checkpoint's tensors to `load` and set the random states."""
    load(load_file(folder / TENSORS))
    _set_random_state(json.loads((folder / STATE).read_text())["random"])


def _write_manifest(folder: Path) -> None:
    files = {
        name: {"bytes": (folder / name).stat().st_size, "xxh3": file_digest(folder / name)} for name in (TENSORS, STATE)
    }
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}))


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        for name, expected in files.items():
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes instead of {expected['bytes']}"
            if file_digest(folder / name) != expected["xxh3"]:
                return f"the digest of {name} differs"
    except (OSError, ValueError, KeyError) as error:
        return str(error)
    return None


def _random_state() -> dict[str, str]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def _set_random_state(states: dict[str, str]) -> None:
    for name, text in states.items():
        state = torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.uint8).copy())
        if name == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(state)
