"""Answers of evaluation tasks are the likeliest tokens, one after another, whatever else the model's folder says."""

import json
from pathlib import Path

import pytest
import torch
from tests.conftest import make_model_folder
from transformers import PreTrainedTokenizerFast

from ytrain.engine.world import World
from ytrain.evaluation.tasks import Question, Task, exact_match
from ytrain.models.language_model import LanguageModel
from ytrain.models.load import load_language_model

pytestmark = pytest.mark.invariant
PROMPTS, ANSWER_TOKENS = ["a", "what is 1?", "so it is"], 12
PENALTIES = {"repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "min_new_tokens": 3, "suppress_tokens": [97]}


def answered_by_hand(model: LanguageModel, tokenizer: PreTrainedTokenizerFast, prompt: str, stop_ids: list[int]) -> str:
    ids, answer = tokenizer(prompt)["input_ids"], []
    with model.generating() as module:
        while len(answer) < ANSWER_TOKENS:
            token = int(module(input_ids=torch.tensor([ids + answer])).logits[0, -1].argmax())
            if token in stop_ids:
                break
            answer.append(token)
    return str(tokenizer.decode(answer, skip_special_tokens=True))


@pytest.mark.parametrize("stops", [True, False])
def test_answers_are_greedy(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, stops: bool) -> None:
    folder = make_model_folder(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps(PENALTIES))
    model = load_language_model(folder, compute_dtype=torch.float32, device=torch.device("cpu"), trained=False)
    own = model.module.generation_config
    stop_ids = [tokenizer.eos_token_id] if stops else []
    expected = [answered_by_hand(model, tokenizer, prompt, stop_ids) for prompt in PROMPTS]
    questions = [
        Question(prompt=prompt, shown=prompt, expected=answer) for prompt, answer in zip(PROMPTS, expected, strict=True)
    ]
    task = Task(name="t", questions=questions, max_new_tokens=ANSWER_TOKENS)

    found = exact_match(model, tokenizer, task, stop_ids=stop_ids, world=World())

    assert [example["answer"] for example in found["examples"]] == expected
    assert model.module.generation_config is own  # it is the output's
