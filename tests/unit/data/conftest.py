"""Chat templates in the manner of the common model families, and a small tokenizer that knows their special tokens.

Each template states the family's special tokens and their order, as short as it can be said.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ytrain.data import DataSource

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<bos>", "<start_of_turn>", "<end_of_turn>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
    "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]",
]  # fmt: skip

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TEMPLATES = {
    "smollm2": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe helpful<|im_end|>\n{% endif %}" + CHATML
    ),
    # Reasoning is kept only in turns after the last question; the last turn always has a think block.
    "qwen3": (
        "{% set ns = namespace(last=0) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
        "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>"
        "{% elif m.role == 'assistant' %}"
        "{% if loop.index0 > ns.last and (loop.last or m.reasoning_content) %}"
        "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}"
        "{% for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}"
        "<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "gemma": (
        "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    # Closes every complete conversation with the end of text, so that an earlier turn is no prefix of the whole.
    "phi": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
    ),
    "mistral": (
        "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content }}[/TOOL_RESULTS]"
        "{% elif m.role == 'assistant' %} {{ m.content }}</s>"
        "{% else %}{{ raise_exception('Only user, tool and assistant roles are supported') }}{% endif %}{% endfor %}"
    ),
}  # fmt: skip


def _backend() -> Tokenizer:
    """A byte-level BPE in which each of these words, with a space before it or without, is one token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    words = "system user assistant model ipython tool Be helpful Hi there Hello Ask again Sure thing Why not"
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([words, *words.split()], trainer)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)  # as GPT-2's tokenizer has it
    return backend


MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]
WriteSource = Callable[..., DataSource]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A tokenizer with the template of a family (or none)."""
    backend = _backend()

    def make(family: str | None) -> PreTrainedTokenizerFast:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token="<|endoftext|>", bos_token="<|begin_of_text|>"
        )
        tokenizer.chat_template = None if family is None else TEMPLATES[family]
        return tokenizer

    return make


@pytest.fixture
def write_source(tmp_path: Path) -> WriteSource:
    """Writes a file and names it as a source."""

    def write(content: str | bytes, name: str = "train.jsonl", **options: object) -> DataSource:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return DataSource(((name, path),), **options)  # type: ignore[arg-type]

    return write
