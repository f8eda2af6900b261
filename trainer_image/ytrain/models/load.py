"""Loading a tokenizer and a model from a folder: safetensors only, no remote code, precision by the device."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ytrain.models.language_model import LanguageModel
from ytrain_api.errors import SpecError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


def load_tokenizer(folder: Path, *, field: str = "spec.model.source") -> PreTrainedTokenizerFast:
    """The model's tokenizer.

    Raises:
        SpecError: the folder holds none, or one that only foreign code could read.
    """
    _read_config(folder, field)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise SpecError(
            f"{field}: {folder} has no tokenizer ({' or '.join(TOKENIZER_FILES)}); "
            "copy the tokenizer files of the base model beside the weights"
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more particular
        raise SpecError(f"{field}: the tokenizer in {folder} cannot be loaded: {error}") from error
    loaded: PreTrainedTokenizerFast = tokenizer
    return loaded


def load_config(folder: Path, field: str = "spec.model.source") -> PretrainedConfig:
    """The configuration of a model folder with weights in it, which are not read.

    Raises:
        SpecError: no weights in a safe format, or no configuration that transformers knows without foreign code.
    """
    config = _read_config(folder, field)
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise SpecError(
            f"{field}: {folder} holds no .safetensors weights (found: {found}); pickled .bin and .pt weights are "
            "refused, and a .gguf file is turned into a model folder by `ytrain model import FILE.gguf DIR`"
        )
    return config


def vocabulary_size(folder: Path, field: str = "spec.model.source") -> int:
    """Tokens that the model of a folder has.

    Raises:
        SpecError: no configuration that transformers knows without foreign code.
    """
    size: int = _read_config(folder, field).get_text_config().vocab_size
    return size


def load_module(
    folder: Path, *, dtype: torch.dtype, device: torch.device, field: str = "spec.model.source"
) -> PreTrainedModel:
    """The causal language model of a folder, its weights in `dtype` on `device`.

    Raises:
        SpecError: no model there, a kind that transformers does not know, or weights in an unsafe format.
    """
    load_config(folder, field)
    try:
        module: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, OSError, KeyError, SafetensorError) as error:
        raise SpecError(f"{field}: {folder} is not a causal language model that can be loaded: {error}") from error
    loaded: PreTrainedModel = module.to(device)
    return loaded


def load_language_model(
    folder: Path, *, compute_dtype: torch.dtype, device: torch.device, trained: bool, field: str = "spec.model.source"
) -> LanguageModel:
    """The model of a folder; `trained` keeps float32 master weights, else the weights are held in the compute type."""
    dtype = torch.float32 if trained else compute_dtype
    module = load_module(folder, dtype=dtype, device=device, field=field)
    return LanguageModel(module, compute_dtype=compute_dtype)


def check_vocabulary(other: PretrainedConfig, config: PretrainedConfig, field: str) -> None:
    """Refuse a model that cannot be asked about the tokens of another one.

    Raises:
        SpecError: the vocabularies differ in size.
    """
    theirs, ours = (each.get_text_config().vocab_size for each in (other, config))
    if theirs != ours:
        raise SpecError(
            f"{field}: its vocabulary has {theirs} tokens, that of spec.model.source {ours}; "
            "name a model that shares the tokenizer"
        )


def _read_config(folder: Path, field: str) -> PretrainedConfig:
    if not folder.is_dir():
        raise SpecError(f"{field}: {folder} is not a folder; give the folder that holds config.json")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise SpecError(
                f"{field}: {folder} is a LoRA adapter and has no config.json; name its base model here and the adapter "
                "in spec.model.lora.startFrom, or make a model of both: ytrain merge ADAPTER DIR"
            )
        raise SpecError(
            f"{field}: {folder} has no config.json, so it is no transformers model folder; name the folder that "
            "from_pretrained would read"
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise SpecError(f"{field}: {folder} has no configuration that transformers knows: {error}") from error
    return config
