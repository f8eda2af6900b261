"""What is asked of vLLM, and what is made of its answers, where no vLLM is needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.rl.vllm.messages import EngineSettings
from ytrain.rl.vllm.process import engine_environment
from ytrain.rl.vllm.worker import engine_arguments, entropy_of_top, logprobs_mode

pytestmark = pytest.mark.unit

VOCABULARY = 500


def settings(lora_rank: int | None = None) -> EngineSettings:
    return EngineSettings(
        model="/models/base",
        dtype="bfloat16",
        vocabulary=VOCABULARY,
        max_tokens=640,
        temperature=0.7,
        top_p=1.0,
        stop_ids=(1, 2),
        lora_rank=lora_rank,
        gpu_memory_utilization=0.4,
    )


@pytest.mark.parametrize(("rank", "slots"), [(1, 8), (8, 8), (9, 16), (200, 256), (512, 512)])
def test_an_adapter_gets_the_smallest_slot_that_holds_it(rank: int, slots: int) -> None:
    arguments = engine_arguments(settings(rank), on_cpu=False)
    assert arguments["enable_lora"] and arguments["max_lora_rank"] == slots and "hf_overrides" not in arguments


def test_a_whole_model_has_an_output_head_of_its_own() -> None:
    arguments = engine_arguments(settings(), on_cpu=False)
    assert arguments["hf_overrides"] == {"tie_word_embeddings": False} and "enable_lora" not in arguments


def test_a_cpu_gets_small_blocks_and_a_gpu_its_own() -> None:
    on_cpu, on_gpu = (engine_arguments(settings(8), on_cpu=value) for value in (True, False))
    assert on_cpu["block_size"] == 32 and on_cpu["enforce_eager"]
    assert "block_size" not in on_gpu and "enforce_eager" not in on_gpu
    assert on_gpu["trust_remote_code"] is False and on_gpu["generation_config"] == "vllm"


@pytest.mark.parametrize(
    ("temperature", "top_p", "mode"),
    [(1.0, 1.0, "processed_logprobs"), (0.5, 1.0, "processed_logprobs"), (1.0, 0.9, "raw_logprobs")],
)
def test_log_probabilities_are_those_at_the_temperature_before_the_cut(
    temperature: float, top_p: float, mode: str
) -> None:
    assert logprobs_mode(temperature, top_p) == mode


def test_the_engine_sees_no_rank_no_address_and_no_token() -> None:
    ours = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
        "HF_TOKEN": "hidden",
        "CUDA_VISIBLE_DEVICES": "3",
        "OMP_NUM_THREADS": "2",
        "VLLM_CPU_KVCACHE_SPACE": "8",
        "VLLM_NO_USAGE_STATS": "0",
    }
    seen = engine_environment(ours)
    assert {name for name in ours if name in seen} == {
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_NO_USAGE_STATS",
    }
    assert seen["CUDA_VISIBLE_DEVICES"] == "3" and seen["VLLM_CPU_KVCACHE_SPACE"] == "8"
    assert seen["VLLM_NO_USAGE_STATS"] == "1" and seen["DO_NOT_TRACK"] == "1"


@given(seed=st.integers(0, 10_000), sharpness=st.floats(0.1, 8), known=st.integers(1, VOCABULARY))
def test_the_entropy_of_the_likeliest_tokens_is_off_by_less_than_what_is_left_out(
    seed: int, sharpness: float, known: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=VOCABULARY) * sharpness
    log_p = np.sort(logits - np.log(np.exp(logits).sum()))[::-1]
    exact = -(np.exp(log_p) * log_p).sum()
    (estimate,) = entropy_of_top(log_p[None, :known], VOCABULARY)
    rest = max(0.0, 1.0 - np.exp(log_p[:known]).sum())
    least = -rest * log_p[known - 1]
    most = -rest * np.log(rest / max(1, VOCABULARY - known)) if rest > 0 else 0.0
    assert abs(estimate - exact) <= abs(most - least) / 2 + 1e-5


def test_a_certain_token_has_no_entropy() -> None:
    assert entropy_of_top([[0.0, -np.inf, -np.inf]], VOCABULARY).tolist() == [0.0]
