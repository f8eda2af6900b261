"""Runs one training micro-batch on tensors without data, to learn the memory that it needs without having it.

The real model code, objective and backward pass run under PyTorch's fake tensors while storages that come and go
are counted, so the figures hold for any architecture and need neither weights nor a device.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig

from ytrain.data.rows import Row
from ytrain.models.language_model import LanguageModel
from ytrain.models.live_bytes import LiveBytes
from ytrain.models.lora import add_adapter
from ytrain.models.probe import unfit
from ytrain.objective.head import Objective, objective_sum
from ytrain.objective.weights import nlirg


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward and backward pass of one rank computes.

    `tokens` in one segment, the last `supervised` of which have a label. `adapter` holds the rank and targets of LoRA;
    None trains the full model.
    """

    tokens: int
    supervised: int
    compute_dtype: torch.dtype = torch.float32
    gradient_checkpointing: bool = False
    adapter: "Adapter | None" = None


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as the job describes it."""

    rank: int
    targets: tuple[str, ...] = ("all-linear",)


@dataclass(frozen=True, kw_only=True)
class StepTrace:
    """Parameters, and bytes of one micro-batch beyond weights, gradients and optimizer.

    `saved_bytes` are alive between the forward and the backward pass; `head_bytes` come on top while the loss and its
    gradient are computed; `peak_bytes` is the most that was alive at once.
    """

    parameters: int
    trainable: int
    weight_bytes: int
    saved_bytes: int
    head_bytes: int
    peak_bytes: int


class NotTraceableError(Exception):
    """The model can be trained, but not without data: such as mixtures of experts, whose work depends on the tokens."""


def trace_step(config: PretrainedConfig, batch: MicroBatch) -> StepTrace:
    """Trace a micro-batch of the causal language model that `config` describes: seconds, also for 8 billion parameters.

    Raises:
        NotTraceableError: the model's code looks at values of its tensors, or uses a kernel that has no fake version.
        SpecError: the architecture cannot be trained, or has no layer with the adapter's target names.
    """
    with torch.device("meta"):
        model = build_model(config, batch)
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # the error below says it in a line
    try:
        with FakeTensorMode():
            _without_data(model.top)
            return measure_step(model, batch)
    except RuntimeError as error:  # what fake tensors raise for either reason
        raise NotTraceableError(f"memory of a {config.model_type} model cannot be estimated: {error}") from error
    except Exception as error:
        raise unfit(model, error) from error


def measure_step(model: LanguageModel, batch: MicroBatch) -> StepTrace:
    """The same for a model that exists, its tensors real or not. Leaves gradients behind in its parameters."""
    row = _row(batch, model.device)
    parameters = list(model.top.parameters())
    trainable = list(model.trainable().values())
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trainable if parameter.grad is not None]
    buffers = list(model.top.buffers())
    with LiveBytes([*parameters, *buffers, *gradients, row.input_ids_1T, row.position_ids_1T]) as memory:
        hidden_RD = model.hidden(row)[row.label_rows_R]
        saved = memory.live
        before_head, memory.peak = memory.peak, memory.live
        total, _ = objective_sum(hidden_RD, row.labels_R, model.head(), Objective(weigh=nlirg()))
        head = memory.peak - saved
        memory.peak = max(memory.peak, before_head)
        total.backward()  # type: ignore[no-untyped-call]
    return StepTrace(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in trainable),
        weight_bytes=sum(parameter.nbytes for parameter in parameters),
        saved_bytes=saved,
        head_bytes=head,
        peak_bytes=memory.peak,
    )


def build_model(config: PretrainedConfig, batch: MicroBatch) -> LanguageModel:
    """The model in the types and with the adapter that training would give it, randomly initialised."""
    dtype = batch.compute_dtype if batch.adapter else torch.float32
    module = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model = LanguageModel(module, compute_dtype=batch.compute_dtype)
    if batch.adapter:
        targets = list(batch.adapter.targets)
        model = add_adapter(model, rank=batch.adapter.rank, alpha=1.0, dropout=0.0, targets=targets, seed=0)
    if batch.gradient_checkpointing:
        module.activation_checkpointing_enable({"use_reentrant": False})
    model.top.train()
    return model


def _without_data(module: torch.nn.Module) -> None:
    """Replace what the meta device holds by tensors that pretend to be on the CPU, tied weights by the same one."""
    replaced: dict[int, Tensor] = {}

    def pretended(tensor: Tensor) -> Tensor:
        if id(tensor) not in replaced:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            replaced[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return replaced[id(tensor)]

    for part in module.modules():
        tensors: dict[str, Any] = part._parameters | part._buffers
        for name, tensor in tensors.items():
            if tensor is not None:
                owner: dict[str, Any] = part._parameters if name in part._parameters else part._buffers
                owner[name] = pretended(tensor)


def _row(batch: MicroBatch, device: torch.device) -> Row:
    first = batch.tokens - batch.supervised
    return Row(
        input_ids_1T=torch.zeros(1, batch.tokens, dtype=torch.long, device=device),
        position_ids_1T=torch.arange(batch.tokens, device=device)[None],
        boundaries=(0, batch.tokens),
        tokens=batch.tokens,
        label_rows_R=torch.arange(first, batch.tokens, device=device),
        labels_R=torch.zeros(batch.supervised, dtype=torch.long, device=device),
    )
