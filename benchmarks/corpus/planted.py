"""How well a corpus job finds answers that were made wrong: precision and recall, against loss alone and chance.

`python benchmarks/corpus/planted.py` makes a corpus of reasoning-gym tasks for each seed, makes 5 % of its answers
wrong (another problem's answer, or one digit changed), scores it with `ytrain run` and looks where the wrong ones stand
in scored.jsonl: with the quickstart's model as it is, for five tasks and for the one that it knows best, and after LoRA
training on other records of the five tasks, all of them right. Needs `make quickstart-corpus` once. The order of terms
in integrals hangs on PYTHONHASHSEED: set it to repeat a corpus to the letter.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))
from make_flawed_data import TASKS, fix_hashes, flawed, write_corpus  # noqa: E402

MODEL = REPOSITORY / ".quickstart/models/SmolLM2-135M-Instruct"
TRAINING_SEED = 1000
"""Of the problems that the model is trained on; the seeds of the corpora lie below it."""

RANKINGS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "divergence": lambda line: -line["scores"]["divergence"],
    "loss": lambda line: -line["scores"]["loss"],
    "rank in scored.jsonl": lambda line: line["rank"],
}


@dataclass(frozen=True)
class Found:
    """Where the wrong answers of one corpus stand."""

    records: int
    wrong: int
    places: Mapping[str, list[int]]
    """1-based places of the wrong ones, by ranking."""
    flagged: int
    """Records of the class likelyWrongLabel."""
    flagged_wrong: int
    kinds: Mapping[str, list[int]]
    """Places in the ranking by loss and divergence of each kind of fault."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".quickstart/planted"), help="what is made stays there")
    parser.add_argument("--records", type=int, default=200, help="of each corpus")
    parser.add_argument("--wrong", type=float, default=0.05, help="share of wrong answers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="a corpus for each")
    parser.add_argument("--training-records", type=int, default=200, help="0: only the model as it is")
    arguments = parser.parse_args()
    fix_hashes()
    folder = arguments.folder.resolve()
    cases = {
        "five tasks, the model as it is": (MODEL, tuple(TASKS)),
        "number_format alone, which it knows best, the model as it is": (MODEL, ("number_format",)),
    }
    if arguments.training_records:
        model = trained(folder, arguments.training_records)
        cases[f"five tasks, trained on {arguments.training_records} right records"] = (model, tuple(TASKS))
    for name, (model, tasks) in cases.items():
        found = [
            look(folder / f"{model.name}-{len(tasks)}-{seed}", model, arguments.records, arguments.wrong, seed, tasks)
            for seed in arguments.seeds
        ]
        print_table(name, arguments.seeds, found)


def trained(folder: Path, records: int) -> Path:
    """The model after an epoch over right records of the tasks."""
    data, output = folder / f"training-{records}", folder / f"trained-{records}"
    if not (data / "records.jsonl").is_file():
        write_corpus(data, flawed(records, 0.0, 0, TRAINING_SEED))
    method = {
        "model": {"source": f"file://{MODEL}", "lora": {"rank": 16, "alpha": 32}},
        "sft": {},
        "optimization": {"learningRate": 5e-4, "epochs": 1, "batchSequences": 8},
        "output": {"target": f"file://{output}", "merge": True},
    }
    ytrain(folder / f"train-{records}", data / "records.jsonl", method)
    return output / "merged"


def look(folder: Path, model: Path, records: int, wrong: float, seed: int, tasks: Sequence[str]) -> Found:
    """Score one corpus and look up the wrong records."""
    if not (folder / "corpus/planted.jsonl").is_file():  # what is scored must be what is looked up
        write_corpus(folder / "corpus", flawed(records, wrong, 0, seed, tasks))
    analyses = {"corpus": {"analyses": ["divergence"], "examples": 20}, "model": {"source": f"file://{model}"}}
    ytrain(folder / "run", folder / "corpus/records.jsonl", analyses)
    lines = read_lines(folder / "run/output/scored.jsonl")
    kinds = {line["line"]: line["planted"] for line in read_lines(folder / "corpus/planted.jsonl")}
    places = {name: places_of(kinds, sorted(lines, key=key)) for name, key in RANKINGS.items()}
    flagged = [line["line"] for line in lines if line["class"] == "likelyWrongLabel"]
    return Found(
        records=len(lines),
        wrong=len(kinds),
        places=places,
        flagged=len(flagged),
        flagged_wrong=len(set(flagged) & kinds.keys()),
        kinds={
            f"{kind}, {name}": places_of(
                {line for line, its_kind in kinds.items() if its_kind == kind}, sorted(lines, key=RANKINGS[name])
            )
            for kind in ("swapped", "falsified")
            for name in ("loss", "divergence")
        },
    )


def places_of(wanted: Iterable[int], ranked: Iterable[Mapping[str, Any]]) -> list[int]:
    """1-based places of records in a ranking."""
    lines = set(wanted)
    return [place for place, line in enumerate(ranked, start=1) if line["line"] in lines]


def print_table(name: str, seeds: list[int], found: list[Found]) -> None:
    """Means over the corpora, and each corpus in brackets."""
    records, wrong = found[0].records, found[0].wrong
    tenth = records // 10
    print(f"\n{name}; {len(seeds)} corpora of {records} records, {wrong} wrong, seeds {seeds}")
    print(f"{'ranking':24}{f'precision@{wrong}':>28}{f'recall in the first {tenth}':>34}{'average precision':>30}")
    for ranking in RANKINGS:
        places = [one.places[ranking] for one in found]
        cells = (
            spread([sum(place <= wrong for place in mine) / wrong for mine in places]),
            spread([sum(place <= tenth for place in mine) / wrong for mine in places]),
            spread([statistics.fmean((i + 1) / place for i, place in enumerate(mine)) for mine in places]),
        )
        print(f"{ranking:24}{cells[0]:>28}{cells[1]:>34}{cells[2]:>30}")
    share = wrong / records
    print(f"{'chance':24}{share:>28.2f}{tenth / records:>34.2f}{share:>30.2f}")
    flagged, right = sum(one.flagged for one in found), sum(one.flagged_wrong for one in found)
    total = wrong * len(found)
    precision = f"{right / flagged:.2f}" if flagged else "-"
    print(f"class likelyWrongLabel: {flagged} records, precision {precision}, recall {right / total:.2f}")
    for kind in found[0].kinds:
        all_places = [place for one in found for place in one.kinds[kind]]
        first = sum(place <= tenth for place in all_places)
        print(f"  {kind}: {first} of {len(all_places)} in the first {tenth}")


def spread(values: list[float]) -> str:
    """Mean, and each value."""
    return f"{statistics.fmean(values):.2f} ({' '.join(f'{value:.2f}' for value in values)})"


def ytrain(folder: Path, records: Path, method: Mapping[str, Any]) -> None:
    """Run a job over the records in a folder, unless it is done."""
    job = {
        "apiVersion": "ytrain.io/v1alpha1",
        "kind": "YTrainJob",
        "metadata": {"name": "planted"},
        "spec": {**method, "data": {"train": [{"source": f"file://{records}"}], "maxTokens": 512}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(job))
    command = [str(Path(sys.executable).with_name("ytrain")), "run", str(file), "--workdir", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
