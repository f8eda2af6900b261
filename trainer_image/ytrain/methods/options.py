"""How a machine places a run: nothing here changes the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ytrain.training.run_folder import Resume, RunFolder

if TYPE_CHECKING:
    # It loads torch, which a launcher does without.
    from ytrain.engine.device import DeviceName


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Places and choices of one run on one machine."""

    folder: RunFolder
    base_dir: Path
    """Folder that relative sources begin at: the job file's."""
    claims: Mapping[str, Path]
    device: DeviceName
    resume: Resume
    cache: Path
    """Folder of tokenised data, shared by runs."""
