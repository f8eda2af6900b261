"""Operations against PyTorch's own count, and the cost of windows against the windows themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from ytrain.data.rows import Segment, build_row
from ytrain.models.cost import ModelSize, measure_matmul_rate, model_size, training_flops, training_seconds, window_cost
from ytrain.models.step_trace import Adapter, MicroBatch, build_model, measure_step

pytestmark = pytest.mark.unit

CONFIG = LlamaConfig(
    hidden_size=64,
    num_hidden_layers=3,
    intermediate_size=176,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=500,
    tie_word_embeddings=True,
)


class Sample:
    def __init__(self, prompt: int, answer: int) -> None:
        self.input_ids = np.zeros(prompt + answer, dtype=np.int32)
        self.supervised = np.arange(prompt + answer) >= prompt


def test_sizes_leave_out_the_embedding_and_count_a_tied_head() -> None:
    size = model_size(CONFIG)
    assert size.body == 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 176)
    assert size.head == 500 * 64
    assert size.attention == 3 * 64


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_agree_with_pytorchs_count(lora: bool, checkpointing: bool) -> None:
    """Within 8 %, attention aside, which PyTorch does not count on a CPU.

    The rest is LoRA's own products, and the last product of each layer, which checkpointing need not compute again.
    """
    batch = MicroBatch(
        tokens=64, supervised=40, gradient_checkpointing=checkpointing, adapter=Adapter(rank=1) if lora else None
    )
    model = build_model(CONFIG, batch)
    with FlopCounterMode(display=False) as counter:
        measure_step(model, batch)
    size = replace(model_size(CONFIG), attention=0)
    expected = training_flops(size, [64], 40, lora=lora, gradient_checkpointing=checkpointing)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.08)


def test_attention_is_forward_and_backward_over_half_of_the_pairs() -> None:
    size = ModelSize(body=0, head=0, attention=10)
    assert training_flops(size, [8], 0, lora=False) == 3 * (2 * 2 * 10 * 8 * 8 / 2)


def test_what_is_computed_for_another_sample_already_costs_the_head_alone() -> None:
    size = model_size(CONFIG)
    half, whole = (training_flops(size, [64], 16, lora=True, forwarded=share) for share in (0.5, 1.0))
    assert whole - half == pytest.approx(training_flops(size, [64], 0, lora=True) / 2)


def test_short_samples_attend_to_less() -> None:
    size = model_size(CONFIG)
    assert training_flops(size, [32] * 4, 10, lora=False) < training_flops(size, [128], 10, lora=False)


def test_seconds_follow_from_a_measured_rate() -> None:
    rate = measure_matmul_rate(CONFIG, tokens=64, dtype=torch.float32, device=torch.device("cpu"), seconds=0.01)
    assert training_seconds(1e9, rate) == pytest.approx(2 * training_seconds(5e8, rate))


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=5), st.integers(1, 12))
def test_window_cost_is_that_of_the_rows(samples: list[tuple[int, int]], n: int) -> None:
    held = [Sample(prompt, answer) for prompt, answer in samples]
    rows = [
        build_row(held, [Segment(index, first, min(first + n, answer))])
        for index, (_, answer) in enumerate(samples)
        for first in range(0, answer, n)
    ]
    cost = window_cost(samples, n)
    assert cost.windows == len(rows)
    assert cost.forward_tokens == sum(row.tokens for row in rows)
    assert cost.trained_tokens == sum(len(row.labels_R) for row in rows)


def test_a_window_as_long_as_the_answer_costs_nothing_more() -> None:
    cost = window_cost([(10, 30), (5, 20)], 30)
    assert cost.times_whole == 1
    assert cost.forward_per_trained == pytest.approx((39 + 24) / 50)


def test_short_windows_forward_the_prompt_again_and_again() -> None:
    assert window_cost([(100, 100)], 10).times_whole == pytest.approx((10 * 99 + 10 * 45 + 100) / 199)
