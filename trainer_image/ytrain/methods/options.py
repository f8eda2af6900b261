"""How the command line places a run on this machine; nothing here changes the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ytrain.engine.device import DeviceName
from ytrain.engine.world import World
from ytrain.training.run_folder import Resume, RunFolder


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Places and choices of one run."""

    folder: RunFolder
    base_dir: Path
    """Folder of the job file, for relative sources."""
    claims: Mapping[str, Path]
    device: DeviceName
    resume: Resume
    cache: Path
    """Folder of tokenised data, shared by runs."""
    world: World = field(default_factory=World)
    lock_seconds: float = 0.0
    """How long the run folder may be held by another process, such as a rank that is just being ended."""
