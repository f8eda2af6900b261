"""Sample trees against independent chains at equal sampled tokens, on the example of reinforcement learning.

Run it with `python benchmarks/rl/tree_against_chains.py`, after `make quickstart-rl` has made model and data. Both
kinds train from the same job, seed by seed, in turns; a step of chains samples about as many tokens as one of
trees. They are compared where the one with fewer tokens ends: by the reward of the last steps before, and by the
accuracy (greedy, on questions that were not trained on) of the last evaluation before. The reward of a tree is the mean
of its leaves, which are more where the model is unsure, so accuracy is the fairer figure.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TREE = {
    "rollout": {"promptsPerStep": 8, "chains": 4, "maxNewTokens": 16},
    "tree": {"rounds": 1, "forks": 2, "branches": 2},
}
CHAINS = {"rollout": {"promptsPerStep": 8, "chains": 6, "maxNewTokens": 16}}
"""Two branches at each of two forks add about half of the tokens that four chains have, so six chains compare."""
KINDS = {"tree": TREE, "chains": CHAINS}
LAST_STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--evaluate-steps", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="for runs; must not exist (default: a temporary one)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="ytrain-rl-"))
    folder.mkdir(exist_ok=arguments.folder is None)
    rows: list[dict[str, Any]] = []
    for seed in range(1, arguments.seeds + 1):
        kinds = sorted(KINDS, reverse=seed % 2 == 0)
        runs = {kind: run(folder, kind, seed, arguments.steps, arguments.evaluate_steps) for kind in kinds}
        budget = min(sampled(lines)[-1] for lines, _ in runs.values())
        rows += [{"kind": kind, "seed": seed, **at_budget(*runs[kind], budget)} for kind in KINDS]
        print(table(rows), flush=True)


def run(folder: Path, kind: str, seed: int, steps: int, every: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train; returns the lines of metrics.jsonl and evaluation.json."""
    documents = list(yaml.safe_load_all((ROOT / "examples/rljob.yaml").read_text()))
    spec = documents[-1]["spec"]
    spec["rl"] = copy.deepcopy(KINDS[kind]) | {"reward": spec["rl"]["reward"]}
    spec["optimization"] |= {"seed": seed, "maxSteps": steps}
    spec["evaluation"] = {"tasks": spec["evaluation"]["tasks"], "everySteps": every}
    del spec["output"]
    name = f"{kind}-{seed}"
    (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(documents))
    command = [Path(sys.executable).with_name("ytrain"), "run", folder / f"{name}.yaml", "--workdir", folder / name]
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run([*command, "--claim", f"ytrain={ROOT / '.quickstart'}"], check=True, stdout=log, stderr=log)
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / name / "evaluation.json").read_text())


def sampled(lines: list[dict[str, Any]]) -> list[int]:
    """Tokens sampled up to each step."""
    return list(accumulate(line["rl"]["sampledTokens"] for line in lines))


def at_budget(lines: list[dict[str, Any]], evaluation: dict[str, Any], budget: int) -> dict[str, Any]:
    """The figures of a run when it had sampled `budget` tokens."""
    within = [line for line, total in zip(lines, sampled(lines), strict=True) if total <= budget]
    rl = [line["rl"] for line in within]
    last = within[-1]["step"]
    points = [evaluation["before"], *evaluation["history"], evaluation["after"]]
    measured = [point for point in points if point["step"] <= last][-1]
    tokens = sum(entry["sampledTokens"] for entry in rl)
    return {
        "steps": last,
        "tokens": tokens,
        "forwarded": sum(entry["forwardedTokens"] for entry in rl) / tokens,
        "answers": sum(entry["leaves"] for entry in rl),
        "mixed": 1000 * sum(entry["mixedGroups"] for entry in rl) / tokens,
        "reward": statistics.mean(entry["rewardMean"] for entry in rl[-LAST_STEPS:]),
        "accuracy": measured["tasks"][0]["accuracy"],
        "measured": measured["step"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread (standard deviation) over seeds of each kind, and every seed's accuracy."""
    seeds = len({row["seed"] for row in rows})
    text = [
        f"\n{seeds} seeds",
        "| | steps | sampled tokens | answers | forwarded per sampled token | mixed groups per 1,000 tokens | reward, "
        f"last {LAST_STEPS} steps | accuracy | accuracy of each seed (at step) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        cells = [spread([row[name] for row in of_kind], form) for name, form in COLUMNS]
        each = ", ".join(f"{row['accuracy']:.0%} ({row['measured']})" for row in of_kind)
        text.append(f"| {kind} | {' | '.join(cells)} | {each} |")
    return "\n".join(text)


COLUMNS = (
    ("steps", ".0f"),
    ("tokens", ",.0f"),
    ("answers", ",.0f"),
    ("forwarded", ".2f"),
    ("mixed", ".2f"),
    ("reward", ".2f"),
    ("accuracy", ".2f"),
)


def spread(values: list[float], form: str) -> str:
    """Mean ± standard deviation."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(statistics.stdev(values), form)}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
