"""The memory estimate against what PyTorch really keeps and allocates."""

from itertools import product

import pytest
import torch
from transformers import DogeConfig, LlamaConfig, MixtralConfig, PretrainedConfig, Qwen3Config

from ytrain.models.estimate import estimate_memory
from ytrain.models.step_trace import (
    Adapter,
    MicroBatch,
    NotTraceableError,
    StepTrace,
    build_model,
    measure_step,
    trace_step,
)
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500}
LLAMA = LlamaConfig(**SMALL, intermediate_size=176, num_key_value_heads=2, tie_word_embeddings=True)
QWEN = Qwen3Config(**SMALL, intermediate_size=176, num_key_value_heads=4, head_dim=16, tie_word_embeddings=False)

BATCHES = [
    MicroBatch(tokens=48, supervised=20, compute_dtype=dtype, gradient_checkpointing=checkpointing, adapter=adapter)
    for dtype, checkpointing, adapter in product(
        (torch.float32, torch.bfloat16), (False, True), (None, Adapter(rank=8))
    )
]


def named(value: object) -> str:
    if isinstance(value, MicroBatch):
        words = (str(value.compute_dtype).removeprefix("torch."), "lora" if value.adapter else "full")
        return "-".join([*words, *(["checkpointing"] if value.gradient_checkpointing else [])])
    assert isinstance(value, PretrainedConfig)
    return value.model_type


def saved_bytes(config: PretrainedConfig, batch: MicroBatch) -> int:
    """Bytes that autograd is handed to keep from a real forward pass, without the parameters themselves."""
    model = build_model(config, batch)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.top.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    decoder = model.module.get_decoder()
    ids = torch.zeros(1, batch.tokens, dtype=torch.long)
    positions = torch.arange(batch.tokens)[None]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), model.autocast():
        decoder(input_ids=ids, position_ids=positions, node_boundaries=(0, batch.tokens), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for data, tensor in kept.items() if data not in own)


@pytest.mark.parametrize(
    ("config", "batch"), [*((LLAMA, batch) for batch in BATCHES), (QWEN, BATCHES[0]), (QWEN, BATCHES[-1])], ids=named
)
def test_a_trace_without_data_equals_the_measurement_with_data(config: PretrainedConfig, batch: MicroBatch) -> None:
    traced, measured = trace_step(config, batch), measure_step(build_model(config, batch), batch)
    assert traced == measured


@pytest.mark.parametrize("batch", BATCHES, ids=named)
def test_activations_are_what_autograd_keeps(batch: MicroBatch) -> None:
    """Within 4 hidden states: the last one, its selected rows and the rotary tables live, but not for autograd."""
    traced, counted = measure_step(build_model(LLAMA, batch), batch).saved_bytes, saved_bytes(LLAMA, batch)
    few = 4 * batch.tokens * LLAMA.hidden_size * 4
    assert counted - few <= traced <= counted + few


def test_activations_grow_with_layers_and_tokens() -> None:
    def saved(layers: int, tokens: int) -> int:
        config = LlamaConfig(**SMALL | {"num_hidden_layers": layers}, intermediate_size=176)
        return trace_step(config, MicroBatch(tokens=tokens, supervised=10)).saved_bytes

    one, two, three = saved(1, 64), saved(2, 64), saved(3, 64)
    assert three - two == two - one
    assert saved(2, 128) - saved(1, 128) == 2 * (two - one)


def test_checkpointing_keeps_one_hidden_state_a_layer() -> None:
    def saved(layers: int) -> int:
        config = LlamaConfig(**SMALL | {"num_hidden_layers": layers}, intermediate_size=176)
        return trace_step(config, MicroBatch(tokens=64, supervised=10, gradient_checkpointing=True)).saved_bytes

    assert saved(2) - saved(1) == 64 * SMALL["hidden_size"] * 4


def test_master_weights_are_float32_and_a_frozen_base_is_not() -> None:
    full = trace_step(LLAMA, MicroBatch(tokens=8, supervised=4, compute_dtype=torch.bfloat16))
    assert full.weight_bytes == 4 * full.parameters and full.trainable == full.parameters
    lora = trace_step(LLAMA, MicroBatch(tokens=8, supervised=4, compute_dtype=torch.bfloat16, adapter=Adapter(rank=8)))
    assert lora.weight_bytes == 2 * (lora.parameters - lora.trainable) + 4 * lora.trainable


def test_the_logits_of_unsupervised_tokens_cost_nothing() -> None:
    few = trace_step(LLAMA, MicroBatch(tokens=400, supervised=10)).head_bytes
    many = trace_step(LLAMA, MicroBatch(tokens=400, supervised=400)).head_bytes
    assert few < many / 2


def test_a_model_whose_work_depends_on_the_data_is_refused_by_name() -> None:
    experts = MixtralConfig(**SMALL, intermediate_size=64, num_local_experts=2)
    with pytest.raises(NotTraceableError, match="mixtral"):
        trace_step(experts, MicroBatch(tokens=8, supervised=4))


def test_an_architecture_that_cannot_be_trained_is_told() -> None:
    with pytest.raises(SpecError, match=r"spec\.model\.source: DogeForCausalLM cannot be trained: .*mask of its own"):
        trace_step(DogeConfig(**SMALL, intermediate_size=64), MicroBatch(tokens=8, supervised=4))


@pytest.mark.parametrize(
    ("stage", "ranks", "weights", "gradients", "optimizer"),
    [(0, 4, 400, 400, 800), (1, 4, 400, 400, 200), (2, 4, 400, 100, 200), (3, 4, 100, 100, 200), (3, 1, 400, 400, 800)],
)
def test_zero_shares_out(stage: int, ranks: int, weights: int, gradients: int, optimizer: int) -> None:
    trace = StepTrace(parameters=100, trainable=100, weight_bytes=400, saved_bytes=70, head_bytes=20, peak_bytes=95)
    estimate = estimate_memory(trace, zero_stage=stage, world_size=ranks)
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (weights, gradients, optimizer)
    assert (estimate.activations, estimate.head, estimate.backward) == (70, 20, 5)
    assert estimate.total == weights + gradients + optimizer + trace.peak_bytes
