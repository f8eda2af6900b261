"""Small random models of several families, samples, and the gradient of a set of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from ytrain.data.rows import Segment, build_row
from ytrain.models.language_model import LanguageModel
from ytrain.objective import weights
from ytrain.objective.head import Objective, objective_sum

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
# Full, grouped-query, sliding-window and mixed attention; norms, heads and biases of their own.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "mistral": {"sliding_window": 7},
    "gemma3_text": {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {"original_max_position_embeddings": 256},
    "olmo2": {},
}


@dataclass(frozen=True)
class Tokens:
    """A sample as the rows want it."""

    input_ids: np.ndarray
    supervised: np.ndarray


def random_model(family: str = "llama", **config: Any) -> LanguageModel:
    """A random model of a family, float32, on the CPU."""
    torch.manual_seed(0)
    settings = AutoConfig.for_model(family, **{**SIZES, **config})
    return LanguageModel(AutoModelForCausalLM.from_config(settings, dtype=torch.float32))


def random_samples(lengths: Sequence[int] = (9, 31, 5, 17, 24), seed: int = 0) -> list[Tokens]:
    """Samples with an unsupervised beginning and a gap, as a conversation of two turns has."""
    random = np.random.default_rng(seed)
    samples = []
    for length in lengths:
        supervised = np.arange(length) >= length // 3
        supervised[length // 2] = False
        samples.append(Tokens(random.integers(3, 101, length).astype(np.int32), supervised))
    return samples


def segments(samples: Sequence[Tokens]) -> list[Segment]:
    """All labels of every sample."""
    return [Segment(i, 0, int(sample.supervised.sum())) for i, sample in enumerate(samples)]


def loss_and_gradients(
    model: LanguageModel,
    samples: Sequence[Tokens],
    rows: Sequence[Sequence[Segment]],
    objective: Objective | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """The objective over all rows and its gradient, as the loop accumulates them, without the normaliser."""
    objective = objective or Objective(weigh=weights.nlirg())
    for parameter in model.trainable().values():
        parameter.grad = None
    total = 0.0
    for row_segments in rows:
        row = build_row(samples, row_segments)
        loss, _ = objective_sum(model.hidden(row)[row.label_rows_R], row.labels_R, model.head(), objective)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}


def assert_same(a: tuple[float, dict[str, Tensor]], b: tuple[float, dict[str, Tensor]], tolerance: float) -> None:
    """Equal losses, and gradients equal relative to the largest entry of each."""
    assert a[0] == pytest.approx(b[0], rel=tolerance)
    assert a[1].keys() == b[1].keys() and a[1]
    for name, gradient in a[1].items():
        scale = max(b[1][name].abs().max().item(), 1e-6)
        difference = (gradient - b[1][name]).abs().max().item()
        assert difference <= tolerance * scale, f"{name}: {difference} of {scale}"
