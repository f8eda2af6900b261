"""LoRA: a new adapter on frozen weights, or one that training continues from, both by PEFT."""

import math
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from safetensors import SafetensorError

from ytrain.models.language_model import START_ADAPTER, LanguageModel
from ytrain_api.errors import SpecError


def add_adapter(
    model: LanguageModel, *, rank: int, alpha: float, dropout: float, targets: list[str], seed: int
) -> LanguageModel:
    """`model` with a new float32 adapter whose output is zero, so that training starts at the model itself.

    Raises:
        SpecError: no layer of the model has one of the names in `targets`, or the output head has.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float scales as well as an int
        lora_dropout=dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        peft = get_peft_model(model.module, config)
    except ValueError as error:
        linear = sorted(
            {name.rsplit(".", 1)[-1] for name, m in model.module.named_modules() if isinstance(m, torch.nn.Linear)}
        )
        raise SpecError(
            f"spec.model.lora.targets: {targets}: {error}; the linear layers of this model are {', '.join(linear)}"
        ) from error
    _check_head(model, "spec.model.lora.targets")
    return LanguageModel(model.module, peft=peft, compute_dtype=model.compute_dtype)


def continue_adapter(
    model: LanguageModel, folder: Path, *, rank: int, alpha: float, dropout: float, targets: list[str]
) -> LanguageModel:
    """`model` with the adapter of `folder` to go on with, and a frozen copy of it as the start to compare with.

    Raises:
        SpecError: the folder holds no adapter, or one of another rank, scale or targets, or of another model, or one on
            the output head.
    """
    field = "spec.model.lora.startFrom"
    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise SpecError(f"{field}: {folder} has no adapter_config.json with adapter_model.safetensors beside it")
    config = LoraConfig.from_pretrained(str(folder))
    if (config.r, config.lora_alpha) != (rank, alpha):
        raise SpecError(
            f"{field}: the adapter in {folder} has rank {config.r} and alpha {config.lora_alpha:g}, "
            f"the job says rank {rank} and alpha {alpha:g}; give them the adapter's values"
        )
    theirs, ours = _adapted(model, config.target_modules), _adapted(model, targets)
    if theirs != ours:
        raise SpecError(
            f"{field}: the adapter in {folder} sits on the layers {', '.join(sorted(theirs))}, "
            f"spec.model.lora.targets {targets} means {', '.join(sorted(ours))}; give the adapter's layers"
        )
    config.lora_dropout = dropout
    try:
        peft = PeftModel.from_pretrained(
            model.module, str(folder), config=config, is_trainable=True, use_safetensors=True
        )
        peft.load_adapter(str(folder), adapter_name=START_ADAPTER, is_trainable=False, use_safetensors=True)
    except (RuntimeError, ValueError, SafetensorError) as error:
        reason = shorten(str(error), 300)
        raise SpecError(f"{field}: the adapter in {folder} does not fit the model, or is damaged: {reason}") from error
    _check_head(model, field)
    peft.set_adapter("default")
    return LanguageModel(model.module, peft=peft, compute_dtype=model.compute_dtype)


def _check_head(model: LanguageModel, field: str) -> None:
    """Refuse an adapter on the output head, whose weights are used without their module, so it would not be trained;
    and one on embeddings that are tied to it, which cannot be merged: the merged weight would be the head's too."""
    weight = model.head().weight_VD
    for name, layer in model.module.named_modules():
        if isinstance(layer, BaseTunerLayer) and getattr(layer.get_base_layer(), "weight", None) is weight:
            raise SpecError(
                f"{field}: {name} is the output head, or shares its weights, which can have no adapter; leave it out"
            )


def _adapted(model: LanguageModel, targets: Any) -> set[str]:
    """Last names of the layers that `targets` of an adapter's configuration choose; the output head is none of them."""
    transformer: Any = model.module
    head = transformer.get_output_embeddings()
    linear = {n for n, m in model.module.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    if targets not in ("all-linear", ["all-linear"]):
        config = LoraConfig(target_modules=targets)
        linear = {name for name, _ in model.module.named_modules() if check_target_module_exists(config, name)}
    return {name.rsplit(".", 1)[-1] for name in linear}


def default_learning_rate(hidden_size: int) -> float:
    """A LoRA learning rate from the model's width: 5e-5 * 10 * (2000 / width) ** 0.5.

    The form is that of the Tinker cookbook, which fits the exponent per family (0.0775 for Qwen, 0.781 for Llama). 0.5
    lies between them and is our choice, not a measured one.
    """
    return 5e-4 * math.sqrt(2000 / hidden_size)
