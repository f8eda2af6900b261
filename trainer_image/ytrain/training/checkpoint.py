"""Checkpoints on disk: written beside training, complete or absent, verified when read, free of pickle.

`checkpoints/step-000123/` holds `tensors-00001.safetensors` and so on (trained weights and optimizer state, whole,
whatever the number of ranks that saved them), `state.json` (where the run is, every rank's random states) and, written
last, `manifest.json` with sizes and digests. The newest one is found by reading manifests, not by a pointer that can
lie.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ytrain.engine.world import World
from ytrain.models.folder import file_digest, staged
from ytrain.training.background import BackgroundWrite, Part
from ytrain_api.errors import TransientError
from ytrain_api.status import CheckpointStatus

TENSORS, STATE, MANIFEST = "tensors-{:05d}.safetensors", "state.json", "manifest.json"

FORMAT = 2
"""Raised whenever the layout changes."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run is, and what must be the same to go on from there."""

    step: int
    epoch: float
    data_digest: str
    labels_trained: int


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
        keep: how many complete ones stay.
        saved: called with each one that is complete, in the thread that writes it.
    """

    def __init__(self, folder: Path, *, keep: int, saved: Callable[[CheckpointStatus], None] = lambda _: None) -> None:
        self._folder = folder
        self._keep = keep
        self._saved = saved
        self._writing: BackgroundWrite | None = None

    def save(self, position: Position, state: Iterable[tuple[str, Tensor]], world: World) -> None:
        """Copy the state and begin to write a checkpoint of it; the ones before stay intact if that fails.

        All ranks call it, with the state that they gather together. It waits for the checkpoint before.

        Raises:
            TrainingError: the checkpoint before could not be written, because the disk is full.
        """
        random = world.gather(_random_state())
        if world.leads:
            self._complete()
            self._writing = BackgroundWrite(partial(self._write, position, random))
            self._writing.take(state)
        else:
            for _ in state:
                pass

    def raise_failure(self) -> None:
        """Raise what has gone wrong in writing the latest checkpoint; it may still be under way.

        Raises:
            TrainingError: the disk is full.
        """
        if self._writing is not None:
            self._writing.raise_failure()

    def finish(self, world: World) -> None:
        """Return when the latest checkpoint is complete. All ranks call it.

        Raises:
            TrainingError: the disk is full.
        """
        self._complete()
        world.wait()

    def abandon(self) -> None:
        """Let the latest checkpoint be completed where something else has gone wrong."""
        if self._writing is not None:
            self._writing.join()

    def _complete(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing.raise_failure()

    def _write(self, position: Position, random: list[dict[str, str]], parts: Iterator[Part]) -> None:
        folder = self._folder / f"step-{position.step:06d}"
        for path in self._folder.glob(".step-*.partial"):
            shutil.rmtree(path)  # what a save left that was killed: as large as a checkpoint
        for path in self._folders():
            if _step(path) >= position.step:
                # Damaged, and passed over when the run was resumed; it must not count as the newest.
                shutil.rmtree(path)
        newest = self._complete_ones()[-1:]
        when_full = (
            f"last complete checkpoint: {newest[0].name if newest else 'none'}. "
            "Free space, then run the same command to go on from there"
        )
        with staged(folder, when_full=when_full) as stage:
            for number, tensors in enumerate(parts, start=1):
                # Not save_file, which keeps Python from running, and so training, until the disk has taken it all.
                (stage / TENSORS.format(number)).write_bytes(to_bytes(tensors))
            (stage / STATE).write_text(json.dumps({"position": asdict(position), "random": random}))
            _write_manifest(stage)
        self._saved(checkpoint_status(folder))
        oldest = self._complete_ones()[-self._keep :][0]
        for path in self._folders():
            if _step(path) < _step(oldest):  # or what a removal left of it that was killed
                shutil.rmtree(path)

    def latest(self, report_damage: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is complete and undamaged; the damaged ones are reported and passed over.

        Raises:
            TransientError: one cannot be read, which need not mean that it is damaged.
        """
        for path in reversed(self._folders()):
            problem = _problem(path)
            if problem is None:
                return path
            report_damage(f"checkpoint {path} is damaged ({problem}); it is passed over")
        return None

    def _folders(self) -> list[Path]:
        """Folders of checkpoints, complete or not, oldest first; a copy under another name is none of them."""
        found = self._folder.glob("step-*")
        return sorted((path for path in found if path.name.removeprefix("step-").isdecimal()), key=_step)

    def _complete_ones(self) -> list[Path]:
        return [path for path in self._folders() if (path / MANIFEST).is_file()]


def read_position(folder: Path) -> Position:
    """Where the run was when it saved."""
    return Position(**json.loads((folder / STATE).read_text())["position"])


def restore(folder: Path, load: Callable[[Mapping[str, Tensor]], None], world: World, seed: int) -> None:
    """Hand the checkpoint's tensors to `load` and set this rank's random states.

    With another number of ranks than saved it, these begin anew from `seed`, the step and the rank.
    """
    load(_StoredTensors(folder))
    state = json.loads((folder / STATE).read_text())
    if len(state["random"]) == world.size:
        _set_random_state(state["random"][world.rank])
    else:
        torch.manual_seed(
            int(np.random.SeedSequence([seed, state["position"]["step"], world.rank]).generate_state(1)[0])
        )


def checkpoint_status(folder: Path) -> CheckpointStatus:
    """A complete checkpoint in the words of the job's status."""
    manifest = folder / MANIFEST
    written = datetime.fromtimestamp(manifest.stat().st_mtime, UTC)
    return CheckpointStatus(
        step=_step(folder),
        path=str(folder),
        complete=True,
        saved_at=written.isoformat(timespec="seconds").replace("+00:00", "Z"),
        digest=file_digest(manifest),
    )


class _StoredTensors(Mapping[str, Tensor]):
    """The tensors of a checkpoint, read one at a time as they are asked for."""

    def __init__(self, folder: Path) -> None:
        files: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("tensors-*.safetensors"))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118  # not a dict

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _write_manifest(folder: Path) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "xxh3": file_digest(path)} for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}))


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None.

    Raises:
        TransientError: the system does not let it be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this version reads {FORMAT}"
        files = manifest["files"]
        for name, expected in files.items():
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes instead of {expected['bytes']}"
            if file_digest(folder / name) != expected["xxh3"]:
                return f"the digest of {name} differs"
    except (FileNotFoundError, ValueError, KeyError) as error:
        return str(error)
    except OSError as error:
        # Passed over, it would be removed with the next save, and perhaps all training with it.
        raise TransientError(
            f"checkpoint {folder} cannot be read: {error.strerror}. Mend that and run the same command again, "
            "or remove the folder to go on from the one before"
        ) from error
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
