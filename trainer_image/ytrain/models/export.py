"""The result of a run: written complete or not at all, and read back as a user would before the run says done.

Weights are written in float32: rounding to bfloat16 sends back to its start every weight that moved by less than half a
bfloat16 step. Who serves the model in bfloat16 rounds it once, when loading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ytrain.models.folder import staged
from ytrain.models.language_model import LanguageModel
from ytrain.models.merge import merge_adapter
from ytrain_api.errors import TrainingError

RELATIVE_TOLERANCE = 1e-3
"""Largest float32 difference of logits, relative to the largest, between what was trained and what was written."""

BFLOAT16_TOLERANCE = 5e-2
MERGED = "merged"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What reading the output back showed: relative differences of logits on a few training samples."""

    max_logit_difference: float
    merged_max_logit_difference: float | None = None
    change_from_base: float | None = None
    """Of an adapter; 0 means that it does nothing and was probably never applied."""


def export(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    merge: bool,
    samples: Sequence[Tensor],
    record: Callable[[Path, Verified], None],
) -> Verified:
    """Write the trained model (or its adapter, and with `merge` the merged model in `merged/`) and verify it.

    Args:
        samples: token ids `[T]` on which the written model must give the trainer's logits.
        record: writes what else belongs into the folder before it takes its place.

    Raises:
        TrainingError: the written model gives other logits; the folder is not left behind.
    """
    expected = [logits(model, ids) for ids in samples]
    with staged(folder) as stage:
        if model.peft is None:
            model.module.save_pretrained(stage)
            tokenizer.save_pretrained(stage)
            verified = Verified(max_logit_difference=_verify(_load(stage, model), model, samples, expected))
        else:
            model.peft.save_pretrained(stage, selected_adapters=["default"])
            tokenizer.save_pretrained(stage)
            verified = _verify_adapter(model, stage, merge, samples, expected)
        record(stage, verified)
    return verified


def _verify_adapter(
    model: LanguageModel, stage: Path, merge: bool, samples: Sequence[Tensor], expected: Sequence[Tensor]
) -> Verified:
    difference = _verify(_load_adapter(stage, model), model, samples, expected)
    merged_difference = None
    if merge:
        merged_difference = merge_adapter(stage, stage / MERGED)
    with model.peft.disable_adapter():
        base = [logits(model, ids) for ids in samples]
    return Verified(
        max_logit_difference=difference,
        merged_max_logit_difference=merged_difference,
        change_from_base=max(_difference(a, b) for a, b in zip(base, expected, strict=True)),
    )


def logits(model: LanguageModel, ids_T: Tensor) -> Tensor:
    """Float32 logits `[T, V]` of the model as it is trained, by transformers' own forward pass."""
    with model.generating() as module:
        logits_TV: Tensor = module(input_ids=ids_T[None].to(model.device)).logits[0]
    return logits_TV.float().cpu()


def _load(folder: Path, like: LanguageModel) -> Any:
    module: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return module.to(like.device)


def _load_adapter(folder: Path, like: LanguageModel) -> Any:
    base: Any = AutoModelForCausalLM.from_pretrained(
        str(like.module.config.name_or_path), dtype=like.module.dtype, use_safetensors=True
    )
    return PeftModel.from_pretrained(base.to(like.device), str(folder), use_safetensors=True)


def _verify(written: Any, model: LanguageModel, samples: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    written.eval()
    tolerance = RELATIVE_TOLERANCE if model.compute_dtype == torch.float32 else BFLOAT16_TOLERANCE
    worst = 0.0
    for ids, reference in zip(samples, expected, strict=True):
        with torch.no_grad(), model.autocast():
            worst = max(
                worst, _difference(written(input_ids=ids[None].to(model.device)).logits[0].float().cpu(), reference)
            )
    if not worst <= tolerance:
        raise TrainingError(
            f"the written model gives other logits than the trained one (relative difference {worst:.2g}, allowed "
            f"{tolerance:g}); nothing was left in the output folder, the last checkpoint still holds the weights"
        )
    return worst


def _difference(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()
