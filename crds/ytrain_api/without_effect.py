"""Which fields of a spec say nothing with its method. They are allowed, and no part of what a run is."""

from collections.abc import Sequence
from typing import Literal

from ytrain_api.evaluation import Checkpoint
from ytrain_api.job import Method, Spec
from ytrain_api.optimization import Optimization

_STEP_SIZE = ["optimization.batch_tokens", "optimization.batch_sequences"]

_IGNORED: dict[Method | Literal["windows"], tuple[str, list[str]]] = {
    "rl": ("rl.rollout.promptsPerStep makes a step", _STEP_SIZE),
    "windows": ("with sft.window every few answer tokens of a sample make a step", _STEP_SIZE),
    "corpus": (
        "a corpus job updates no weights",
        [
            "model.gradient_checkpointing",
            *(f"optimization.{name}" for name in Optimization.model_fields if name != "micro_batch_tokens"),
            "evaluation.every_steps",
            *(f"checkpoint.{name}" for name in Checkpoint.model_fields),
        ],
    ),
}


def without_effect(spec: Spec) -> tuple[str, Sequence[str]]:
    """Why, and the fields as block.field in Python's spelling, given or not."""
    windows = spec.sft is not None and spec.sft.window is not None
    return _IGNORED.get("windows" if windows else spec.method, ("", ()))
