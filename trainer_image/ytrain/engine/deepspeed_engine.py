"""DeepSpeed: ZeRO spreads the optimizer's state over the ranks (stage 1), gradients too (2), weights too (3).

DeepSpeed only spreads and gathers. What happens to a summed gradient is the same as in `TorchEngine`: one scale and one
clip, then PyTorch's AdamW on float32 weights. Its own checkpoints, precisions and schedules are not used.
"""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ytrain.engine.adamw import adamw, clip_factor
from ytrain.engine.base import MODEL, OPTIMIZER, OptimizerSettings, T
from ytrain.engine.deepspeed_config import deepspeed_config
from ytrain.engine.world import World
from ytrain_api.errors import SpecError
from ytrain_api.optimization import Deepspeed

STEP, MOMENTS = "step", ("exp_avg", "exp_avg_sq")
"""AdamW's state of a weight, by its names in PyTorch."""


class DeepSpeedEngine:
    """ZeRO over `module`, of which `parameters` (by name, float32) are trained.

    Args:
        outside: weights of `module` that a forward pass uses itself, not through the module that owns them, such as the
            output head's: with stage 3 they must be gathered for it.
    """

    lockstep = True
    """Gradients travel in backward passes: with stages 2 and 3 in each, with 0 and 1 in the last one of a step."""

    def __init__(
        self,
        module: torch.nn.Module,
        parameters: dict[str, torch.nn.Parameter],
        settings: OptimizerSettings,
        world: World,
        block: Deepspeed,
        *,
        outside: Sequence[torch.nn.Parameter] = (),
    ) -> None:
        assert parameters
        assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
        self._sharded = block.zero_stage == 3
        self._parameters = parameters
        self._settings = settings
        self._world = world
        self._spreads = block.zero_stage > 0
        self._gradient_scale = 1.0
        self._norm: float | None = None
        """Of the gradient of this step, with stage 0; ZeRO measures its own."""
        device = next(iter(parameters.values())).device
        self._deepspeed = _import_deepspeed(device, world)
        _connect_alone(device)
        self._root = _Root(module)
        self._adamw = adamw(parameters, settings)
        self._adamw.register_step_pre_hook(self._before_update)
        self._engine = self._initialize(deepspeed_config(block))
        self._begin_moments()
        if self._sharded:
            for parameter in outside:
                self._deepspeed.zero.register_external_parameter(self._root, parameter)

    def _initialize(self, config: dict[str, Any]) -> Any:
        try:
            self._deepspeed.DeepSpeedConfig(config)
        except (self._deepspeed.DeepSpeedConfigError, AssertionError, KeyError, TypeError, ValueError) as error:
            raise SpecError(f"spec.deepspeed.config: DeepSpeed refuses it: {shorten(str(error), 500)}") from error
        engine, *_ = self._deepspeed.initialize(model=self._root, optimizer=self._adamw, config=config)
        return engine

    def forward(self, compute: Callable[[], T]) -> T:
        """What `compute` returns; the loss that `backward` will get is that, or the first of it if it is a tuple."""
        self._root.compute = compute
        loss = self._engine()
        value, self._root.compute, self._root.value = self._root.value, None, None
        if isinstance(value, tuple) and isinstance(loss, Tensor):
            return cast(T, (loss, *value[1:]))
        return cast(T, loss if isinstance(loss, Tensor) else value)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed takes the mean over ranks; the loss is a rank's share of a sum.
        self._engine.backward(self._world.size * loss, scale_wrt_gas=False)

    def step(self, *, learning_rate: float, gradient_scale: float = 1.0) -> float:
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._gradient_scale, self._norm = gradient_scale, None
        if not self._spreads:
            gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients).item()
            if not math.isfinite(self._norm):
                self._engine.zero_grad()
                return self._norm
        self._engine.step()  # ZeRO itself takes no update from a norm that is not finite
        norm = self._engine.get_global_grad_norm() if self._norm is None else self._norm
        return gradient_scale * float(norm)

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Scale and clip the gradients that AdamW is about to take; ZeRO updates one flat piece after another."""
        norm = self._engine.optimizer._global_grad_norm if self._norm is None else self._norm
        factor = self._gradient_scale * clip_factor(self._gradient_scale * float(norm), self._settings)
        if factor != 1.0:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(gradients, factor)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        utils = self._deepspeed.utils
        step: Tensor = next(iter(self._adamw.state.values()))[STEP]
        for name, parameter in self._parameters.items():
            yield MODEL + name, utils.safe_get_full_fp32_param(parameter) if self._sharded else parameter.detach()
            if step == 0.0:  # as yet it is what AdamW begins with
                continue
            yield f"{OPTIMIZER}{name}.{STEP}", step.clone()
            for key in MOMENTS:
                if self._spreads:
                    whole = utils.safe_get_full_optimizer_state(parameter, key)
                else:
                    whole = self._adamw.state[parameter][key]
                yield f"{OPTIMIZER}{name}.{key}", whole

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        names = set(state)
        steps = [name for name in names if name.startswith(OPTIMIZER) and name.endswith(f".{STEP}")]
        step = state[steps[0]].item() if steps else 0.0
        for moments in self._adamw.state.values():
            moments[STEP].fill_(step)
        for name, parameter in self._parameters.items():
            weight = state[MODEL + name]
            with self._deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                parameter.copy_(weight)
            self._set(parameter, weight)
            for key in MOMENTS:
                if f"{OPTIMIZER}{name}.{key}" in names:
                    self._set(parameter, state[f"{OPTIMIZER}{name}.{key}"], key)

    def _begin_moments(self) -> None:
        """Make AdamW's state, which it would make in its first step: too late for ZeRO 1 and 2 to find all of it."""
        zero = self._engine.optimizer
        pieces = [piece for group in self._adamw.param_groups for piece in group["params"]]
        for weights in zero.fp32_partitioned_groups_flat if self._sharded else pieces:
            self._adamw.state[weights] = {
                STEP: torch.zeros((), device=weights.device),
                **{key: torch.zeros_like(weights) for key in MOMENTS},
            }
        if self._spreads and not self._sharded:
            zero._lazy_init_hp_params_optimizer_state()

    def _set(self, parameter: torch.nn.Parameter, value: Tensor, key: str | None = None) -> None:
        """Write a whole weight, or a moment of it, to the piece of it that this rank updates."""
        utils = self._deepspeed.utils
        if self._sharded:
            shard: Any = parameter
            size = shard.ds_tensor.numel()
            part = value.flatten()[self._world.rank * size : (self._world.rank + 1) * size]
            part = torch.nn.functional.pad(part, (0, size - part.numel()))
            if key is None:
                utils.safe_set_local_fp32_param(parameter, part)
            else:
                utils.safe_set_local_optimizer_state(parameter, part, key)
        elif key is None:
            utils.safe_set_full_fp32_param(parameter, value)
        elif self._spreads:
            utils.safe_set_full_optimizer_state(parameter, value, key)
        else:
            self._adamw.state[parameter][key].copy_(value)

    @contextmanager
    def whole(self) -> Iterator[None]:
        if not self._sharded:
            yield
            return
        # Its hooks would give the weights back after the first use of each, and gather them again with all ranks.
        hooks = self._engine.optimizer.parameter_offload
        hooks.destroy()
        try:
            with self._deepspeed.zero.GatheredParameters(list(self._root.parameters())):
                yield
        finally:
            hooks.forward_hooks.clear()
            hooks.backward_hooks.clear()
            hooks.setup_zero_stage3_hooks()


class _Root(torch.nn.Module):
    """What DeepSpeed takes for the model: a forward pass of it is whatever `compute` does with `module`.

    Only a tensor is passed through DeepSpeed, which looks for others in vain and says so.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.compute: Callable[[], Any] | None = None
        self.value: Any = None

    def forward(self) -> Any:
        assert self.compute is not None
        self.value = self.compute()
        loss = self.value[0] if isinstance(self.value, tuple) else self.value
        return loss if isinstance(loss, Tensor) else ()


def _import_deepspeed(device: torch.device, world: World) -> Any:
    """DeepSpeed, told by its environment variables what it would else guess, or ask other programs."""
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"spec.deepspeed: works on cpu and cuda, not on {device.type}; give --device cpu, or remove it")
    os.environ["DS_ACCELERATOR"] = device.type
    os.environ["LOCAL_RANK"] = str(device.index or 0)  # for it the number of the GPU, and a rank may see its own alone
    os.environ["LOCAL_SIZE"] = os.environ.get("LOCAL_WORLD_SIZE", str(world.size))
    import deepspeed

    assert deepspeed.accelerator.get_accelerator().device_name() == device.type, "imported before, for another device"
    # Its shared-memory all-reduce serves inference alone and would be compiled here, with a line on standard output.
    deepspeed.ops.__compatible_ops__ = {}
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # it calls them
    for handler in deepspeed.utils.logger.handlers:
        handler.setStream(sys.stderr)
    return deepspeed


def _connect_alone(device: torch.device) -> None:
    """A world of one needs no connection, but DeepSpeed does."""
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
