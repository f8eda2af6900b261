"""A small random model in a folder, with tokenizer and chat template, that loads and trains in well under a second."""

import json
import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from tests.buckets import bucket, bucket_server  # noqa: F401  for every test that wants a bucket
from tests.cluster.fixtures import (  # noqa: F401  for every test that wants a cluster
    api_cluster,
    cluster,
    found_up,
    pytest_collection_modifyitems,
    pytest_xdist_make_scheduler,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# A busy machine takes its time: an example once took half a second, and hypothesis would fail it after a fifth.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte, and ChatML's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )


def make_model_folder(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Write a random Llama with two layers; `config` overrides its sizes."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    }
    settings = LlamaConfig(eos_token_id=tokenizer.eos_token_id, **{**sizes, **config})
    LlamaForCausalLM(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model; tests only read it."""
    return make_model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> PreTrainedTokenizerFast:
    """The small model's tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(model_folder)


def write_chats(path: Path, count: int, *, first: int = 0) -> Path:
    """Chats of one or two turns and of different lengths, a line each."""
    with path.open("w") as file:
        for i in range(first, first + count):
            turns = [("user", f"what is {i}?"), ("assistant", f"{i} is " + "so " * (i % 5) + "it")]
            if i % 3 == 0:
                turns += [("user", "and twice?"), ("assistant", str(2 * i))]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A file of 20 chats."""
    return write_chats(tmp_path / "chats.jsonl", 20)


def wait_until_gone(pids: Iterable[int]) -> None:
    """Wait for processes that are not ours to end; fails after some minutes."""
    for pid in pids:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([process], [], [], 300)[0], f"{pid} is still there"
        finally:
            os.close(process)
