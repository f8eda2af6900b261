"""Makes the records of the corpus example: short verifiable tasks, some with a wrong answer, some nearly repeated.

Run it with `python examples/make_flawed_data.py OUT_DIR`. `records.jsonl` is the corpus, `planted.jsonl` says which of
its lines are wrong or repeated, and how: what an analysis should find. requirements/quickstart.in names the packages.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from make_arithmetic_data import reasoning_gym

TASKS: Mapping[str, Mapping[str, Any]] = {
    "calendar_arithmetic": {"tasks": ["weekday_of_date"]},
    "intermediate_integration": {},
    "list_functions": {},
    "number_format": {"max_num_candidates": 3, "max_n": 9999},
    "time_intervals": {"task_types": ["time"]},
}
"""Task families of reasoning-gym that a model of 135 million parameters partly knows: for most of their problems the
right answer surprises SmolLM2-135M-Instruct less than that of another problem does."""

POLITE = " Thanks."
"""What tells a near-duplicate from the record that it repeats."""


@dataclass(frozen=True)
class Problem:
    """A question with the answer that the corpus gives, and what was done to it."""

    task: str
    question: str
    answer: str
    planted: str | None = None
    """`swapped`, `falsified`, `repeated`, or None: it is as it was made."""
    right: str | None = None
    """The right answer, where the corpus gives another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="made if absent; files of the same name go")
    parser.add_argument("--records", type=int, default=200, help="records before any is repeated (default: 200)")
    parser.add_argument("--wrong", type=float, default=0.05, help="share of wrong answers (default: 0.05)")
    parser.add_argument("--repeated", type=int, default=6, help="near-duplicates that are added (default: 6)")
    parser.add_argument("--seed", type=int, default=42, help="decides problems and plants (default: 42)")
    arguments = parser.parse_args()
    fix_hashes()
    corpus = flawed(arguments.records, arguments.wrong, arguments.repeated, arguments.seed)
    write_corpus(arguments.folder, corpus)
    wrong = sum(problem.right is not None for problem in corpus)
    print(f"{arguments.folder / 'records.jsonl'}: {len(corpus)} records, {wrong} of them wrong")


def fix_hashes() -> None:
    """Start this program again with the same hashes in every process, unless it was: sympy's answers depend on them."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606


def flawed(count: int, wrong: float, repeated: int, seed: int, tasks: Sequence[str] = tuple(TASKS)) -> list[Problem]:
    """`count` problems in random order, a share of them wrong, and `repeated` near-duplicates of right ones.

    The seed decides it all in a program that fixed its hashes.
    """
    chance = random.Random(seed)  # noqa: S311 (not for secrets)
    corpus = list(problems(count, seed, tasks))
    chance.shuffle(corpus)
    for number, index in enumerate(sorted(chance.sample(range(count), round(wrong * count)))):
        digits = any(character.isdigit() for character in corpus[index].answer)
        corpus[index] = (
            falsified(corpus[index], chance) if number % 2 and digits else swapped(corpus[index], corpus, chance)
        )
    # In a shorter question the added words change more than a tenth of the word groups.
    long = [problem for problem in corpus if problem.right is None and len(problem.question.split()) > 45]
    for problem in chance.sample(long, repeated):
        corpus.append(replace(problem, question=problem.question.strip() + POLITE, planted="repeated"))
    return corpus


def problems(count: int, seed: int, tasks: Sequence[str]) -> Iterable[Problem]:
    """The same number of problems of every task, none asked twice."""
    for family in ("algebra", "arithmetic", "induction"):
        reasoning_gym(family)
    registered = reasoning_gym("factory").DATASETS
    for number, task in enumerate(tasks):
        dataset, config = registered[task]
        wanted = count // len(tasks) + (number < count % len(tasks))
        asked: dict[str, str] = {}
        random.seed(seed)  # some of them draw from the module's generator besides their own
        for entry in dataset(config(seed=seed, size=3 * wanted + 20, **TASKS[task])):
            if len(asked) < wanted:
                asked.setdefault(entry["question"], str(entry["answer"]))
        assert len(asked) == wanted, f"{task}: only {len(asked)} different problems"
        yield from (Problem(task, question, answer) for question, answer in asked.items())


def swapped(problem: Problem, corpus: Sequence[Problem], chance: random.Random) -> Problem:
    """With the answer of another problem of its task, which nothing but the question contradicts."""
    others = sorted({other.answer for other in corpus if other.task == problem.task} - {problem.answer})
    return replace(problem, answer=chance.choice(others), planted="swapped", right=problem.answer)


def falsified(problem: Problem, chance: random.Random) -> Problem:
    """With another digit somewhere in its answer, which must have one."""
    place = chance.choice([place for place, character in enumerate(problem.answer) if character.isdigit()])
    digit = chance.choice(sorted(set("0123456789") - {problem.answer[place]}))
    answer = problem.answer[:place] + digit + problem.answer[place + 1 :]
    return replace(problem, answer=answer, planted="falsified", right=problem.answer)


def write_corpus(folder: Path, corpus: Sequence[Problem]) -> None:
    """Write the records, and beside them what was planted, by line."""
    folder.mkdir(parents=True, exist_ok=True)
    records = ({"prompt": problem.question, "response": problem.answer} for problem in corpus)
    planted = (
        {"line": line, "task": problem.task, "planted": problem.planted, "right": problem.right}
        for line, problem in enumerate(corpus, start=1)
        if problem.planted is not None
    )
    for name, lines in (("records.jsonl", records), ("planted.jsonl", planted)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
