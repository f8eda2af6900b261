"""Foretells a run before anything is loaded: its steps, its memory and its time on this machine, and what is odd.

All numbers come from the job, the model's configuration, the tokenised data and half a second of measuring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from transformers import PretrainedConfig

from ytrain.data import TokenDataset
from ytrain.data.rows import build_row
from ytrain.engine.device import choose_precision, describe
from ytrain.methods.chosen import chosen_method
from ytrain.methods.memory import (
    STEPS_LOOKED_AT,
    MemoryNeed,
    Remedy,
    heaviest_micro_batch,
    machine_bytes,
    memory_need,
    remedies,
)
from ytrain.methods.setup import peak_learning_rate, plan, row_tokens
from ytrain.models.cost import (
    WindowCost,
    measure_matmul_rate,
    model_size,
    training_flops,
    training_seconds,
    window_cost,
)
from ytrain_api.job import Spec


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """How the first optimizer step lies in rows."""

    samples: int
    tokens: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Filling:
    """How full the rows are that samples are packed into."""

    row_tokens: int
    """Most tokens of a row."""
    share: float
    """Of the rows' places, those that hold a token."""
    forwarded: float
    """Of the tokens, those that are computed: what samples of a row begin with in common is computed once."""

    def to_json(self) -> dict[str, float]:
        """The `packing` entry of result.json."""
        return {"rowTokens": self.row_tokens, "filled": self.share, "forwarded": self.forwarded}


@dataclass(frozen=True, kw_only=True)
class Course:
    """The optimizer steps of a run."""

    steps: int
    epochs: float
    """Times that the data are really seen: fewer than asked for where maxSteps ends the run."""
    samples_per_step: float | None
    """The mean; None with windows, where a step is a part of one sample."""
    learning_rate: float
    """The peak."""
    learning_rate_is_default: bool
    first: FirstStep
    filling: Filling | None
    """None without packing."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the peak of a step needs, what is there, and, if it does not fit, what would help."""

    need: MemoryNeed
    available: int
    remedies: list[Remedy]

    @property
    def fits(self) -> bool:
        """Whether it fits, without a reserve for the process itself."""
        return self.need.total <= self.available


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Time of the training steps; evaluation and saving come on top."""

    seconds: float
    device: str
    precision: str


def foretell_course(spec: Spec, config: PretrainedConfig, dataset: TokenDataset, device: torch.device) -> Course:
    """The steps of the job."""
    windows = chosen_method(spec).window_tokens is not None
    steps = plan(spec, dataset)
    total, by_epochs = steps.total_steps, replace(steps, max_steps=None).total_steps
    first = next(iter(steps.steps()))
    lengths = [int(dataset.lengths[segment.sample]) for row in first.rows for segment in row]
    return Course(
        steps=total,
        epochs=steps.epochs * total / by_epochs,
        samples_per_step=None if windows else len(_epoch(spec, dataset)) * steps.epochs / by_epochs,
        learning_rate=peak_learning_rate(spec, config.get_text_config().hidden_size),
        learning_rate_is_default=spec.optimization.learning_rate is None,
        first=FirstStep(samples=len(lengths), tokens=sum(lengths), rows=len(first.rows)),
        filling=measure_filling(spec, dataset, device),
    )


def measure_filling(spec: Spec, dataset: TokenDataset, device: torch.device) -> Filling | None:
    """How full the rows of the first steps are; None for a job whose rows are not packed samples."""
    method = chosen_method(spec)
    if not spec.data.packing or method.window_tokens is not None or method.samples_per_step is not None:
        return None
    steps = list(islice(plan(spec, dataset).steps(), STEPS_LOOKED_AT))
    lengths = [length for step in steps for length in step.lengths]
    size = max(row_tokens(spec), int(dataset.lengths.max()))
    rows = [build_row(dataset, segments, device) for step in steps for segments in step.rows]
    return Filling(
        row_tokens=size,
        share=sum(lengths) / (size * len(lengths)),
        forwarded=sum(row.forwarded for row in rows) / sum(row.tokens for row in rows),
    )


def foretell_memory(
    spec: Spec,
    config: PretrainedConfig,
    dataset: TokenDataset,
    *,
    device: torch.device,
    others: Sequence[PretrainedConfig] = (),
    processes: int = 1,
) -> Memory:
    """The memory of the job beside that of `device`: of all its processes on a CPU, else of one on each device.

    Raises:
        NotTraceableError: the model's work depends on its data.
        SpecError: the model has no layer with the adapter's target names.
    """
    dtype = choose_precision(spec.model.precision, device)
    needed = partial(
        memory_need,
        config=config,
        dataset=dataset,
        device=device,
        compute_dtype=dtype,
        others=others,
        ranks=processes,
        sharing=processes if device.type == "cpu" else 1,
    )
    need, available = needed(spec), machine_bytes(device)
    helpful: list[Remedy] = []
    if need.total > available:
        longest = int(dataset.lengths.max())
        helpful = remedies(spec, longest, need.total, lambda changed: needed(changed).total)
    return Memory(need=need, available=available, remedies=helpful)


def foretell_duration(
    spec: Spec,
    config: PretrainedConfig,
    dataset: TokenDataset,
    course: Course,
    *,
    device: torch.device,
    others: Sequence[PretrainedConfig] = (),
    processes: int = 1,
) -> Duration:
    """The time of the training steps, at the speed that `device` shows now; a CPU is no faster for several processes,
    which share its cores."""
    method = chosen_method(spec)
    dtype = choose_precision(spec.model.precision, device)
    seen, window = _epoch(spec, dataset), method.window_tokens
    size, labels = model_size(config), int(dataset.supervised_counts[seen].sum())
    lengths = dataset.lengths[seen].tolist()
    if window is not None:
        lengths = list(_window_lengths(lengths, dataset.supervised_counts[seen].tolist(), window))
    forwarded = course.filling.forwarded if course.filling else 1.0
    flops = training_flops(
        size,
        lengths,
        labels,
        lora=spec.model.lora is not None,
        gradient_checkpointing=spec.model.gradient_checkpointing,
        forwarded=forwarded,
    )
    references = [model_size(other) for other in others]
    if method.anchor_weight or method.reference:  # the start once more, or this model before the choice of tokens
        references.append(size)
    for reference in references:  # a forward pass is half of what a frozen base costs
        flops += training_flops(reference, lengths, labels, lora=True, forwarded=forwarded) / 2
    rows = heaviest_micro_batch(spec, dataset, dtype).tokens
    rate = measure_matmul_rate(config, tokens=rows, dtype=dtype, device=device)
    return Duration(
        seconds=training_seconds(flops * course.epochs, rate) / (1 if device.type == "cpu" else processes),
        device=describe(device),
        precision=str(dtype).removeprefix("torch."),
    )


def foretell_windows(spec: Spec, dataset: TokenDataset) -> WindowCost | None:
    """What windows cost in forwarded tokens; None for a job without them."""
    window = chosen_method(spec).window_tokens
    if window is None:
        return None
    prompts = dataset.lengths - dataset.supervised_counts
    return window_cost(zip(prompts.tolist(), dataset.supervised_counts.tolist(), strict=True), window)


def _epoch(spec: Spec, dataset: TokenDataset) -> np.ndarray:
    """The samples of the first epoch; the others have about as many."""
    return dataset.epoch_samples(spec.optimization.seed, 0)


def _window_lengths(lengths: Sequence[int], label_counts: Sequence[int], window_tokens: int) -> Iterator[int]:
    """Tokens that each window forwards, all labels taken to be at the end, as in a chat of one turn."""
    for length, labels in zip(lengths, label_counts, strict=True):
        for end in range(window_tokens, labels + window_tokens, window_tokens):
            yield length - labels + min(end, labels) - 1
