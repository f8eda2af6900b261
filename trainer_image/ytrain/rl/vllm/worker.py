"""The process of a vLLM engine: loads a model, then continues prefixes with the weights that it was last given.

Run as a module by `process.py`, which is the other end of the channel. The engine runs in this process and starts no
other; what it prints goes to the log.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ytrain.rl.tree import Figures
from ytrain.rl.vllm.messages import Continuation, EngineSettings, Failed, Question, Ready, Weights

TOP_TOKENS = 64
"""Likeliest tokens whose log-probabilities estimate the entropy. vLLM gives all of them too, at a quarter of the speed;
on answers of a 135M model the estimate was off by 0.05 nats of 2 on average, and by 0.5 at most."""

LONGEST_REASON = 400
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM can be set up for; an adapter may be smaller."""

CPU_BLOCK_TOKENS = 32
"""Tokens that the cache shares at least. On a CPU vLLM takes 128, more than most prompts have; it wants a multiple of
32. On a GPU its own 16 are good."""


def main() -> None:
    """Answer until the other end closes the channel."""
    channel: Connection[Any, Any] = Connection(int(sys.argv[1]))
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, asked), daemon=True).start()
    try:
        engine = _Engine(asked.get())
        channel.send(Ready())
        while True:
            channel.send(engine.answer(asked.get()))
    except Exception as error:
        with suppress(OSError):  # the log may be what fills the disk
            traceback.print_exc()
        channel.send(Failed(f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"))
        sys.exit(1)


def _receive(channel: "Connection[Any, Any]", asked: "queue.SimpleQueue[Any]") -> None:
    """Pass questions on; when the rank is gone, end at once, whatever is being computed."""
    try:
        while True:
            asked.put(channel.recv())
    except (EOFError, OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)


class _Engine:
    def __init__(self, settings: EngineSettings) -> None:
        import torch
        from vllm import LLM
        from vllm.platforms import current_platform

        self._settings = settings
        on_cpu = current_platform.is_cpu()
        if on_cpu:  # what vLLM compiles even when it is to be eager takes longer than it saves, and a compiler
            torch.compiler.set_stance("force_eager")
        self._llm = LLM(**engine_arguments(settings, on_cpu=on_cpu))
        self._adapter: Any = None

    def answer(self, question: Question) -> list[Continuation]:
        """Of each prefix, in order."""
        from vllm import SamplingParams

        if question.weights is not None:
            self._take(question.weights)
        outputs = self._llm.generate(
            [{"prompt_token_ids": prefix.ids} for prefix in question.prefixes],
            [
                SamplingParams(
                    max_tokens=prefix.max_new_tokens,
                    temperature=self._settings.temperature,
                    top_p=self._settings.top_p,
                    seed=prefix.seed,
                    stop_token_ids=list(self._settings.stop_ids),
                    ignore_eos=True,  # the model's own idea of it; ours are among the stop ids
                    logprobs=min(TOP_TOKENS, self._settings.vocabulary),
                    flat_logprobs=True,
                    detokenize=False,
                )
                for prefix in question.prefixes
            ],
            use_tqdm=False,
            lora_request=self._adapter,
        )
        return [self._continuation(output) for output in outputs]

    def _take(self, weights: Weights) -> None:
        """Sample with these weights from now on; what the cache holds was computed with others."""
        if self._settings.lora_rank is None:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": weights.folder})
        else:
            from vllm.lora.request import LoRARequest

            self._adapter = LoRARequest(f"step-{weights.number}", weights.number, weights.folder)
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the cache of the step before could not be cleared")

    def _continuation(self, output: Any) -> Continuation:
        (completion,) = output.outputs
        flat = completion.logprobs  # of each position: the sampled token's, then those of the likeliest
        top_log_p_TK = np.array(
            [flat.logprobs[begin + 1 : end] for begin, end in zip(flat.start_indices, flat.end_indices, strict=True)]
        )
        return Continuation(
            tokens=list(completion.token_ids),
            log_p=np.array([flat.logprobs[begin] for begin in flat.start_indices], dtype=np.float32),
            entropy=entropy_of_top(top_log_p_TK, self._settings.vocabulary),
            cached=output.num_cached_tokens or 0,
        )


def engine_arguments(settings: EngineSettings, *, on_cpu: bool) -> dict[str, Any]:
    """Arguments of vLLM's `LLM`."""
    arguments: dict[str, Any] = {
        "model": settings.model,
        "dtype": settings.dtype,
        "max_model_len": settings.max_tokens,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "max_logprobs": TOP_TOKENS,
        "logprobs_mode": logprobs_mode(settings.temperature, settings.top_p),
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # not the model's, which would cut the distribution
        "trust_remote_code": False,
        "seed": 0,
    }
    if on_cpu:
        arguments |= {"block_size": CPU_BLOCK_TOKENS, "enforce_eager": True}
    if settings.lora_rank is None:
        # A head that shares the embedding's tensor keeps its old weights when a CPU's are loaded again (seen with
        # vLLM 0.32); the folder that we write has one of its own.
        return arguments | {"hf_overrides": {"tie_word_embeddings": False}}
    rank = min(rank for rank in LORA_RANKS if rank >= settings.lora_rank)
    return arguments | {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}


def logprobs_mode(temperature: float, top_p: float) -> str:
    """vLLM's name for log-probabilities at the temperature, before top_p; it has none for both at once."""
    assert temperature == 1.0 or top_p == 1.0, "the contract's rule"
    return "processed_logprobs" if top_p == 1.0 else "raw_logprobs"


def entropy_of_top(top_log_p_TK: NDArray[np.floating] | Sequence[Sequence[float]], vocabulary: int) -> Figures:
    """An estimate `[T]` of the entropy in nats from the log-probabilities of the K likeliest tokens, best first.

    What is left is at least as uncertain as if every other token were as likely as the last of these, and at most as
    if all of them were equally likely; the estimate is the middle.
    """
    log_p_TK = np.asarray(top_log_p_TK, dtype=np.float64)
    p_TK = np.exp(log_p_TK)
    rest_T = np.clip(1.0 - p_TK.sum(-1), 0.0, 1.0)
    others = max(1, vocabulary - log_p_TK.shape[-1])
    known_T = -(p_TK * np.where(p_TK > 0, log_p_TK, 0.0)).sum(-1)
    least_T = -rest_T * np.where(rest_T > 0, log_p_TK[..., -1], 0.0)
    most_T = -rest_T * np.log(np.where(rest_T > 0, rest_T / others, 1.0))
    entropy_T: Figures = (known_T + (least_T + np.maximum(least_T, most_T)) / 2).astype(np.float32)
    return entropy_T


if __name__ == "__main__":
    main()
