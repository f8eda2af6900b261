"""Importing a GGUF file: its weights, dequantised to float32, and its tokenizer as an ordinary model folder."""

import struct
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ytrain.models.folder import check_empty, staged
from ytrain_api.errors import SpecError

GGUF_MAGIC = b"GGUF"


def import_gguf(source: Path, folder: Path) -> None:
    """Write `source` as a folder that `from_pretrained` reads: safetensors in float32, tokenizer, chat template.

    Raises:
        SpecError: `source` is no GGUF file, holds a kind of model that transformers cannot read, or `folder` is taken.
    """
    check_empty(folder, field="DIR")
    if not source.is_file():
        raise SpecError(f"SRC: {source} is not a file; give the path of a .gguf file")
    with source.open("rb") as file:
        if file.read(4) != GGUF_MAGIC:
            raise SpecError(f"SRC: {source} is not a GGUF file (it does not begin with the letters GGUF)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        module: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    except (ValueError, KeyError, NotImplementedError, struct.error) as error:  # struct.error: it is cut off
        raise SpecError(f"SRC: transformers cannot read {source}: {error}") from error
    # The weights are plain float32 now, but config and module still say "quantized", which save_pretrained refuses.
    del module.config.quantization_config
    module.hf_quantizer = None
    with staged(folder) as stage:
        module.save_pretrained(stage)
        tokenizer.save_pretrained(stage)
