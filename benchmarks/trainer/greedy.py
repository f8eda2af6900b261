"""The neutral judge of reinforcement learning: how many questions a saved model answers with exactly the right text.

Run as `python greedy.py MODEL_OR_ADAPTER QUESTIONS.jsonl --base MODEL`; prints the share. Answers are decoded greedily
by transformers and peft alone.
"""

import argparse
import json
from pathlib import Path

import torch
from saved_model import load_saved
from transformers import AutoTokenizer

MAX_NEW_TOKENS = 16


def share_right(model_folder: Path, questions: Path, base: Path) -> float:
    """Share of records (`prompt`, `response`) whose answer equals the response, but for white space around it."""
    model = load_saved(model_folder, base)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    records = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    chats = [[{"role": "user", "content": record["prompt"]}] for record in records]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    answers = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [answer.strip() == record["response"] for answer, record in zip(answers, records, strict=True)]
    return sum(right) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    arguments = parser.parse_args()
    print(share_right(arguments.model, arguments.questions, arguments.base))


if __name__ == "__main__":
    main()
