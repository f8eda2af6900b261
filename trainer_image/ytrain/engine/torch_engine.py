"""Plain torch: one process, float32 master weights, fused AdamW."""

import math

import torch
from torch import Tensor

from ytrain.engine.base import OptimizerSettings

MODEL, OPTIMIZER = "model.", "optimizer."


class TorchEngine:
    """AdamW over `parameters` (by name), which must be float32: in bfloat16 most updates at 5e-6 round to nothing."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], settings: OptimizerSettings) -> None:
        assert parameters
        assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
        self._parameters = parameters
        self._clip = settings.gradient_clip
        # Norms and biases are not decayed, as is usual.
        matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
        vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, *, learning_rate: float, gradient_scale: float = 1.0) -> float:
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = gradient_scale * torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm):
            factor = gradient_scale * (min(1.0, self._clip / (norm + 1e-6)) if self._clip else 1.0)
            if factor != 1.0:
                torch._foreach_mul_(gradients, factor)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        state = {MODEL + name: parameter.detach() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"{OPTIMIZER}{name}.{key}"] = value
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[MODEL + name])
                prefix = f"{OPTIMIZER}{name}."
                moments = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
                if moments:
                    self._optimizer.state[parameter] = {
                        key: value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
                        for key, value in moments.items()
                    }
