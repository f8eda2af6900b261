"""What a competitor left behind, as the neutral judges load it: by transformers and peft alone."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load_saved(folder: Path, base: Path) -> Any:
    """The model in float32, ready to be asked.

    Args:
        folder: a model, or an adapter to be put on `base`.
    """
    is_adapter = (folder / "adapter_config.json").exists()
    model: Any = AutoModelForCausalLM.from_pretrained(base if is_adapter else folder, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, folder) if is_adapter else model).eval()
