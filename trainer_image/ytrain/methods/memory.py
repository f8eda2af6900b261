"""The memory that a job needs at the peak of a step, part by part, and which of its options would lower it.

Everything is computed from the job, the model's configuration and the lengths of the samples; no weights are read.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from ytrain.data import TokenDataset
from ytrain.methods.chosen import chosen_method
from ytrain.methods.sampling_cache import sampling_cache_bytes
from ytrain.methods.setup import plan, row_tokens
from ytrain.models.estimate import ADAM_BYTES, MemoryEstimate, estimate_memory
from ytrain.models.step_trace import Adapter, MicroBatch, NotTraceableError, trace_step
from ytrain.training.background import PART_BYTES, PARTS_AT_ONCE
from ytrain_api.job import Spec
from ytrain_api.model import Lora

STEPS_LOOKED_AT = 100
"""Steps whose rows are looked at; those of a shuffled epoch are much alike."""

WEIGHT_BYTES = 4
"""Trained weights are float32, whatever the compute type."""

SHORTEST_ROW = 8
"""Least value of data.maxTokens."""

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes at the peak of a training: that of a step, and what is more between steps."""

    estimate: MemoryEstimate
    """Of one rank."""
    frozen_models: int
    """Weights of the teacher or the reference, and of the start model where it is a second copy; of one rank."""
    between_steps: int
    """What sampling and evaluation need beyond the parts of a step that are not there meanwhile; of one rank."""
    checkpoint_copies: int
    """Copies that wait to be written to a checkpoint while the next steps are done: rank 0's, in main memory."""
    sharing: int = 1
    """Ranks that share the memory."""

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of all ranks by part, in the order in which a training needs them."""
        of_one = asdict(self.estimate) | {
            "frozenModels": self.frozen_models,
            "betweenSteps": self.between_steps,
        }
        return {name: self.sharing * size for name, size in of_one.items()} | {
            "checkpointCopies": self.checkpoint_copies
        }

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Remedy:
    """A change of the job that needs less memory."""

    change: str
    bytes: int
    """Memory of the job with the change."""


def memory_need(
    spec: Spec,
    config: PretrainedConfig,
    dataset: TokenDataset,
    *,
    device: torch.device,
    compute_dtype: torch.dtype,
    others: Sequence[PretrainedConfig] = (),
    ranks: int = 1,
    sharing: int = 1,
) -> MemoryNeed:
    """The memory of the job.

    Args:
        device: what it trains on; checkpoints are copied to main memory, which is a CPU's own.
        others: models that are loaded beside the trained one.
        ranks: ranks of the job, among which ZeRO shares its state out.
        sharing: ranks of which the memory is meant.

    Raises:
        NotTraceableError: the model's work depends on its data.
        SpecError: the model has no layer with the adapter's target names.
    """
    trace = trace_step(config, heaviest_micro_batch(spec, dataset, compute_dtype))
    frozen = sum(_parameters(other) for other in others)
    if chosen_method(spec).anchor_weight and not spec.model.lora:  # an adapter is switched off instead
        frozen += trace.parameters
    stage = spec.deepspeed.zero_stage if spec.deepspeed else 0
    state = trace.trainable * (WEIGHT_BYTES + ADAM_BYTES)
    estimate = estimate_memory(trace, zero_stage=stage, world_size=ranks)
    held = trace.weight_bytes if stage == 3 else 0  # gathered, beside this rank's part
    if spec.rl is not None and spec.rl.rollout.engine == "transformers":
        held += sampling_cache_bytes(spec.rl, config, dataset.longest_prompt, compute_dtype)
    return MemoryNeed(
        estimate=estimate,
        frozen_models=frozen * compute_dtype.itemsize,
        between_steps=max(0, held - estimate.total + estimate.weights + estimate.optimizer),
        checkpoint_copies=min(state, PARTS_AT_ONCE * PART_BYTES) if device.type == "cpu" else 0,
        sharing=sharing,
    )


def estimated_bytes(
    spec: Spec,
    config: PretrainedConfig,
    dataset: TokenDataset,
    *,
    device: torch.device,
    compute_dtype: torch.dtype,
    ranks: int,
    others: Sequence[PretrainedConfig] = (),
) -> int | None:
    """What rank 0 needs, to be recorded beside the measured peak; None for a model that cannot be traced."""
    try:
        return memory_need(
            spec, config, dataset, device=device, compute_dtype=compute_dtype, others=others, ranks=ranks
        ).total
    except NotTraceableError:
        return None


def heaviest_micro_batch(spec: Spec, dataset: TokenDataset, compute_dtype: torch.dtype) -> MicroBatch:
    """A micro-batch with as many tokens, and as many labels, as any of the job has.

    With rl a full row of trees, nearly all labels.
    """
    window = chosen_method(spec).window_tokens
    longest = int(dataset.lengths.argmax())
    tokens, labels = int(dataset.lengths[longest]), int(dataset.supervised_counts[longest])
    if spec.rl is not None:
        labels = tokens = max(row_tokens(spec), tokens - labels + spec.rl.rollout.max_new_tokens)
    elif window is not None:
        # The last window of the longest sample forwards all of it.
        labels = min(labels, window)
    else:
        rows = [
            [segment.sample for segment in row]
            for step in islice(plan(spec, dataset).steps(), STEPS_LOOKED_AT)
            for row in step.rows
        ]
        tokens = max(tokens, *(int(dataset.lengths[row].sum()) for row in rows))
        labels = max(labels, *(int(dataset.supervised_counts[row].sum()) for row in rows))
    lora = spec.model.lora
    return MicroBatch(
        tokens=tokens,
        supervised=labels,
        compute_dtype=compute_dtype,
        gradient_checkpointing=spec.model.gradient_checkpointing,
        adapter=Adapter(lora.rank, tuple(lora.targets)) if lora else None,
    )


def remedies(spec: Spec, longest: int, now: int, need: Callable[[Spec], int]) -> list[Remedy]:
    """The options of the job that would lower its memory, each alone and all of them together, best last.

    Args:
        longest: tokens of the longest sample.
        now: bytes of the job as it is.
        need: bytes of a job that differs from `spec` in these options; each call takes seconds.
    """
    changes = _changes(spec, longest)
    found = [(change, changed, need(changed(spec))) for change, changed in changes]
    helpful = sorted((entry for entry in found if entry[2] < now), key=lambda entry: -entry[2])
    result = [Remedy(change, size) for change, _, size in helpful]
    if len(helpful) > 1:
        together = spec
        for _, changed, _ in helpful:
            together = changed(together)
        *first, last = (remedy.change for remedy in result)
        result.append(Remedy(f"{', '.join(first)} and {last}", need(together)))
    return result


def _changes(spec: Spec, longest: int) -> list[tuple[str, Callable[[Spec], Spec]]]:
    """What can be changed; rows are as long as data.maxTokens, and can be as short as the longest sample."""
    windows = chosen_method(spec).window_tokens is not None
    changes: list[tuple[str, Callable[[Spec], Spec]]] = []
    if row_tokens(spec) > longest >= SHORTEST_ROW and spec.data.packing and not windows:
        change = f"data.maxTokens: {longest}" if spec.data.max_tokens > longest else ""
        if spec.optimization.micro_batch_tokens is not None:
            change += (" with " if change else "") + f"optimization.microBatchTokens: {longest}"
        changes.append((change, partial(_with_rows, tokens=longest)))
    if not spec.model.gradient_checkpointing:
        changes.append(("model.gradientCheckpointing: true", partial(_with_model, gradient_checkpointing=True)))
    if spec.model.lora is None:
        changes.append(("model.lora: {}", partial(_with_model, lora=Lora())))
    return changes


def _with_model(spec: Spec, **update: object) -> Spec:
    return spec.model_copy(update={"model": spec.model.model_copy(update=update)})


def _with_rows(spec: Spec, tokens: int) -> Spec:
    data = spec.data.model_copy(update={"max_tokens": tokens})
    optimization = spec.optimization.model_copy(update={"micro_batch_tokens": tokens})
    return spec.model_copy(update={"data": data, "optimization": optimization})


def machine_bytes(device: torch.device) -> int:
    """Memory of the device: the GPU's own, or for a CPU the machine's, or what its container may use of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path(path).read_text().strip() for path in CGROUP_LIMITS if Path(path).is_file()]
    return min([installed, *(int(limit) for limit in limits if limit != "max")])


def _parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return sum(parameter.numel() for parameter in module.parameters())
