"""Plain torch: every rank holds all weights in float32, and the sum of the gradients; fused AdamW."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ytrain.engine.adamw import adamw, clip_factor
from ytrain.engine.base import MODEL, OPTIMIZER, OptimizerSettings, T
from ytrain.engine.world import World


class TorchEngine:
    """AdamW over `parameters` (by name), which must be float32: in bfloat16 most updates at 5e-6 round to nothing."""

    lockstep = False

    def __init__(
        self, parameters: dict[str, torch.nn.Parameter], settings: OptimizerSettings, world: World | None = None
    ) -> None:
        assert parameters
        assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
        self._parameters = parameters
        self._world = world or World()
        self._settings = settings
        self._optimizer = adamw(parameters, settings)

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        del last
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, *, learning_rate: float, gradient_scale: float = 1.0) -> float:
        if self._world.size > 1:
            for parameter in self._parameters.values():
                if parameter.grad is None:  # a rank without a row in this step
                    parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        self._world.sum_gradients(gradients)
        norm = gradient_scale * torch.nn.utils.get_total_norm(gradients).item()
        if math.isfinite(norm):
            factor = gradient_scale * clip_factor(norm, self._settings)
            if factor != 1.0:
                torch._foreach_mul_(gradients, factor)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._parameters.items():
            yield MODEL + name, parameter.detach()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                yield f"{OPTIMIZER}{name}.{key}", value

    def load(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[MODEL + name])
                prefix = f"{OPTIMIZER}{name}."
                moments = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
                if moments:
                    self._optimizer.state[parameter] = {
                        key: value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
                        for key, value in moments.items()
                    }

    def whole(self) -> AbstractContextManager[None]:
        return nullcontext()
