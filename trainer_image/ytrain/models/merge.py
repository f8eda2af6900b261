"""Merging a LoRA adapter into its base model, in float32, and reading the result back before it counts as written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM

from ytrain.models.folder import check_empty, staged
from ytrain.models.load import load_module
from ytrain_api.errors import SpecError, TrainingError

RELATIVE_TOLERANCE = 1e-3
PROBE_SHAPE = (2, 32)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")


def merge_adapter(adapter: Path, folder: Path, *, base: Path | None = None) -> float:
    """Write the merged model to `folder`, with the adapter's tokenizer files beside it.

    Args:
        base: folder of the base model, if it is not the one that the adapter names.

    Returns:
        The largest difference between the merged model's logits, read back, and the adapter's, relative to the largest.

    Raises:
        SpecError: `adapter` holds no adapter or one that does not fit its base, which is not there or damaged, or
            `folder` is taken.
        TrainingError: the merged model gives other logits; nothing is left behind.
    """
    check_empty(folder, field="DIR")
    if not (adapter / "adapter_config.json").is_file():
        raise SpecError(f"ADAPTER: {adapter} has no adapter_config.json; {_instead(adapter)}")
    with _damage_told(adapter):
        named = base or Path(str(LoraConfig.from_pretrained(str(adapter)).base_model_name_or_path))
    if not named.is_dir():
        raise SpecError(
            f"ADAPTER: {adapter} was trained on {named}, which is not here; give its folder with --base DIR"
        )
    field = "--base" if base else "ADAPTER: its base"
    module = load_module(named, dtype=torch.float32, device=torch.device("cpu"), field=field)
    with _damage_told(adapter):
        model: Any = PeftModel.from_pretrained(module, str(adapter), use_safetensors=True)
    ids = torch.randint(
        0, module.config.get_text_config().vocab_size, PROBE_SHAPE, generator=torch.Generator().manual_seed(0)
    )
    expected = _logits(model, ids)
    with staged(folder) as stage:
        model.merge_and_unload(safe_merge=True).save_pretrained(stage)
        for name in TOKENIZER_FILES:
            if (adapter / name).is_file():
                shutil.copyfile(adapter / name, stage / name)
        merged = AutoModelForCausalLM.from_pretrained(stage, dtype=torch.float32, use_safetensors=True)
        difference = ((_logits(merged, ids) - expected).abs().max() / expected.abs().max()).item()
        if not difference <= RELATIVE_TOLERANCE:
            raise TrainingError(
                f"the merged model gives other logits than the adapter (relative difference {difference:.2g}, allowed "
                f"{RELATIVE_TOLERANCE:g}); nothing was written to {folder}"
            )
    return difference


def _instead(folder: Path) -> str:
    """What to do about a folder that holds no adapter."""
    if (folder / "config.json").is_file():
        return "it is a whole model, which needs no merging"
    output = folder / "output"
    known = (output / "adapter_config.json").is_file()
    return f"give {output}" if known else "give the folder of a LoRA adapter, such as a run's output"


@contextmanager
def _damage_told(adapter: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, SafetensorError) as error:
        reason = shorten(str(error), 300)
        raise SpecError(
            f"ADAPTER: the adapter in {adapter} does not fit its base model, or is damaged: {reason}"
        ) from error


def _logits(model: Any, ids: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids).logits
    return logits
