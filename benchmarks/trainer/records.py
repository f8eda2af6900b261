"""Makes the benchmark's records, the same for every trainer: chats of many reasoning-gym tasks, of 30 to 1,024 tokens,
or the texts of the Python language reference, of 50 to 16,000.

Each chat is TRL's conversational prompt and completion, which ytrain reads as well. Needs requirements/quickstart.in.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-untyped]
from typing import Any

from transformers import AutoTokenizer

REPOSITORY = Path(__file__).parents[2]
MAX_TOKENS = 1024
FAMILIES = ("algebra", "arithmetic", "games", "graphs", "induction")
TASKS = (
    "calendar_arithmetic",
    "chain_sum",
    "countdown",
    "decimal_chain_sum",
    "emoji_mystery",
    "family_relationships",
    "futoshiki",
    "gsm_symbolic",
    "intermediate_integration",
    "kakurasu",
    "knight_swap",
    "list_functions",
    "mahjong_puzzle",
    "n_queens",
    "number_format",
    "polynomial_multiplication",
    "shortest_path",
    "sudoku",
    "survo",
    "time_intervals",
    "tower_of_hanoi",
)


def write_records(folder: Path, model: Path, train: int, held_out: int, seed: int = 0) -> tuple[Path, Path]:
    """Writes `train.jsonl` and `heldout.jsonl` and returns their paths.

    Args:
        model: folder of the tokenizer, whose chat template decides what fits into MAX_TOKENS.
        train: records to train on.
        held_out: records that no trainer sees.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    total = train + held_out
    records = [
        record
        for record in _chats(seed, per_task=2 * total // len(TASKS) + 1)
        if len(tokenizer.apply_chat_template(record["prompt"] + record["completion"], return_dict=True)["input_ids"])
        <= MAX_TOKENS
    ]
    random.Random(seed).shuffle(records)
    return _write(folder, records, train, held_out)


def write_texts(folder: Path, train: int, held_out: int, seed: int = 0) -> tuple[Path, Path]:
    """Writes texts as `write_records` writes chats."""
    texts = [{"text": text.strip()} for _, text in sorted(topics.items())]
    random.Random(seed).shuffle(texts)
    return _write(folder, texts, train, held_out)


def _write(folder: Path, records: list[dict[str, Any]], train: int, held_out: int) -> tuple[Path, Path]:
    assert len(records) >= train + held_out
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "heldout.jsonl"
    for path, part in zip(paths, (records[:train], records[train : train + held_out]), strict=True):
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in part), encoding="utf-8")
    return paths


def _chats(seed: int, per_task: int) -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(REPOSITORY / "examples"))
    from make_arithmetic_data import reasoning_gym

    for family in FAMILIES:
        reasoning_gym(family)
    registered = reasoning_gym("factory").DATASETS
    for task in TASKS:
        dataset, config = registered[task]
        for entry in dataset(config(seed=seed, size=per_task)):
            yield {
                "prompt": [{"role": "user", "content": entry["question"]}],
                "completion": [{"role": "assistant", "content": str(entry["answer"])}],
            }
