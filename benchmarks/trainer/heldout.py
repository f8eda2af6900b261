"""The neutral judge: mean loss of held-out answers or texts under a saved model, by transformers and peft alone.

Run as `python heldout.py MODEL_OR_ADAPTER HELDOUT.jsonl [--base MODEL]`; prints nats per token of answers or texts.
"""

import argparse
import json
from pathlib import Path

import torch
from records import MAX_TOKENS
from saved_model import load_saved
from transformers import AutoTokenizer


def heldout_loss(model_folder: Path, records: Path, base: Path) -> float:
    """Mean -log p over every answer token, end of turn included, each record alone and unpadded.

    Args:
        model_folder: a model, or an adapter to be put on `base`.
        records: conversational prompt and completion, or a text, one a line.
        base: the model that training began with; its tokenizer and chat template are used for every competitor.
    """
    model = load_saved(model_folder, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    total, tokens = 0.0, 0
    for line in records.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "text" in record:  # its beginning, of which all but the first token is predicted
            start = 1
            ids = tokenizer(record["text"], add_special_tokens=False, return_tensors="pt")["input_ids"][:, :MAX_TOKENS]
        else:
            prompt = tokenizer.apply_chat_template(record["prompt"], add_generation_prompt=True, tokenize=False)
            whole = tokenizer.apply_chat_template(record["prompt"] + record["completion"], tokenize=False)
            start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
            ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids, use_cache=False).logits[0, start - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits.float(), ids[0, start:], reduction="sum").item()
        tokens += ids.shape[1] - start
    return total / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("records", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    arguments = parser.parse_args()
    print(heldout_loss(arguments.model, arguments.records, arguments.base))


if __name__ == "__main__":
    main()
