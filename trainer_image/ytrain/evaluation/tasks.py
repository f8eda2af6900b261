"""Tasks answered by generating: the share of questions that the model answers exactly, greedily decoded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from ytrain.engine.world import World
from ytrain.models.language_model import LanguageModel

BATCH = 32
EXAMPLES = 12
"""Questions whose answers are kept for the report."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt as the chat template renders it (ending where the answer begins) and the expected answer."""

    prompt: str
    shown: str
    """The last message of the prompt, for the report."""
    expected: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """Questions of one entry of `evaluation.tasks`."""

    name: str
    questions: Sequence[Question]
    max_new_tokens: int


def exact_match(
    model: LanguageModel, tokenizer: PreTrainedTokenizerFast, task: Task, *, stop_ids: Sequence[int], world: World
) -> dict[str, Any]:
    """The `tasks` entry of an evaluation: answers equal to the expected text, white space at the ends aside.

    The ranks share the batches.
    """
    # Similar lengths together, so that little of a batch is padding.
    order = sorted(range(len(task.questions)), key=lambda i: len(task.questions[i].prompt))
    batches = [order[begin : begin + BATCH] for begin in range(0, len(order), BATCH)]
    mine: list[tuple[int, str]] = []
    for batch in world.share(batches):
        prompts = [task.questions[i].prompt for i in batch]
        mine += zip(batch, _generate(model, tokenizer, prompts, task.max_new_tokens, stop_ids), strict=True)
    answers = [answer for _, answer in sorted(pair for part in world.gather(mine) for pair in part)]
    right = [a.strip() == q.expected.strip() for a, q in zip(answers, task.questions, strict=True)]
    return {
        "name": task.name,
        "metric": "exactMatch",
        "accuracy": sum(right) / len(right),
        "correct": sum(right),
        "samples": len(right),
        "examples": [
            {"prompt": q.shown, "expected": q.expected, "answer": a, "correct": r}
            for q, a, r in list(zip(task.questions, answers, right, strict=True))[:EXAMPLES]
        ],
    }


def _generate(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    max_new_tokens: int,
    stop_ids: Sequence[int],
) -> list[str]:
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    width = max(len(ids) for ids in encoded)
    padding = stop_ids[0] if stop_ids else 0
    input_ids = torch.full((len(encoded), width), padding)  # padding stands left, masked out
    mask = torch.zeros_like(input_ids)
    for i, ids in enumerate(encoded):
        input_ids[i, width - len(ids) :] = torch.tensor(ids)
        mask[i, width - len(ids) :] = 1
    with model.generating() as module, _plainly(module):
        output: Any = module.generate(  # type: ignore[operator]
            input_ids=input_ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(stop_ids) or None,
            pad_token_id=padding,
        )
    return [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in output[:, width:].tolist()]


@contextmanager
def _plainly(module: Any) -> Iterator[None]:
    """Without the model's generation_config.json, whose penalties (such as Qwen2.5's on repetition) are not greedy."""
    own, module.generation_config = module.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        module.generation_config = own
