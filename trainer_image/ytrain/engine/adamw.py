"""The update that every engine takes, however gradients got to it: AdamW, behind one scale and one clip."""

import torch

from ytrain.engine.base import OptimizerSettings


def adamw(parameters: dict[str, torch.nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    """Fused AdamW; norms and biases are not decayed, as is usual. The learning rate is set for each step."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


def clip_factor(norm: float, settings: OptimizerSettings) -> float:
    """What a gradient of this norm is multiplied by, so that its norm is at most the largest that is allowed."""
    return min(1.0, settings.gradient_clip / (norm + 1e-6)) if settings.gradient_clip else 1.0
