"""ytrain's rl against TRL's GRPOTrainer in one run: sampled tokens a second, peak memory, and what each one learned.

Run it after `make quickstart-rl` has made model and data, and `make .venv-bench/ready` the rival's environment. Both
get the same questions, reward, number of independent answers, tokens an answer at most, LoRA, learning rate, float32
and threads, and a process of their own; the order turns round with every seed. The model that each saves is judged by
`greedy.py`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import competitor
import yaml
from compare import HERE, REPOSITORY, TRL_PYTHON, YTRAIN, thread_environment

PLAY = REPOSITORY / ".quickstart"
DATA = PLAY / "data/train.jsonl"
MODEL = PLAY / "models/SmolLM2-135M-Instruct"
LEARNING_RATE = 3e-4


@dataclass(frozen=True)
class Task:
    """What both are given."""

    steps: int
    prompts: int
    chains: int
    max_new_tokens: int
    micro_batch: int
    """Answers that TRL takes through a forward and backward pass at once."""
    threads: int


@dataclass(frozen=True)
class Run:
    """What came of one process."""

    measured: competitor.Measurement
    right: float
    """Share of held-out questions that the saved model answers exactly."""


def run_trl(task: Task, folder: Path, seed: int) -> competitor.Measurement:
    documents = list(yaml.safe_load_all((REPOSITORY / "examples/rljob.yaml").read_text(encoding="utf-8")))
    reward = folder.with_suffix(".py")
    reward.write_text(documents[0]["data"]["reward.py"], encoding="utf-8")
    options = {
        "model": MODEL,
        "data": DATA,
        "reward": reward,
        "folder": folder,
        "prompts": task.prompts,
        "chains": task.chains,
        "micro-batch": task.micro_batch,
        "max-new-tokens": task.max_new_tokens,
        "steps": task.steps,
        "learning-rate": LEARNING_RATE,
        "seed": seed,
        "threads": task.threads,
    }
    command = [str(TRL_PYTHON), str(HERE / "trl_grpo_run.py")]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return _measure(command, folder, task)


def run_ytrain(task: Task, folder: Path, seed: int) -> competitor.Measurement:
    documents = list(yaml.safe_load_all((REPOSITORY / "examples/rljob.yaml").read_text(encoding="utf-8")))
    spec = documents[-1]["spec"]
    rollout = {"promptsPerStep": task.prompts, "chains": task.chains, "maxNewTokens": task.max_new_tokens}
    spec["rl"] = {
        "reward": spec["rl"]["reward"],
        "rollout": rollout,
        "objective": {"advantage": "grpo"},
    }
    spec["optimization"] = {
        "learningRate": LEARNING_RATE,
        "epochs": 100,
        "maxSteps": task.steps,
        "schedule": "constant",
        "warmupFraction": 0.1,
        "weightDecay": 0.01,
        "seed": seed,
    }
    spec["workers"] = {"deviceResource": "none"}
    del spec["output"], spec["evaluation"], spec["storage"]
    job = folder.with_suffix(".yaml")
    job.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    command = [str(YTRAIN), "run", str(job), "--workdir", str(folder), "--device", "cpu", "--claim", f"ytrain={PLAY}"]
    return _measure([*command, "--cache", str(folder.with_suffix(".cache"))], folder, task)


def _measure(command: list[str], folder: Path, task: Task) -> competitor.Measurement:
    return competitor.run(
        command, folder / "metrics.jsonl", thread_environment(task.threads), folder.with_suffix(".log"), tokens=sampled
    )


def sampled(step: dict[str, Any]) -> int:
    """Tokens that were sampled in a step, from a line of metrics.jsonl."""
    return int(step["rl"]["sampledTokens"] if "rl" in step else step["tokens"])


COMPETITORS = {"ytrain": run_ytrain, "trl": run_trl}


def share_right(model: Path, threads: int) -> float:
    command = [sys.executable, str(HERE / "greedy.py"), str(model), str(PLAY / "data/test.jsonl"), "--base", str(MODEL)]
    environment = {**os.environ, **thread_environment(threads)}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="for jobs, logs and runs; must not exist (default: a temporary one)"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=8, help="of a step")
    parser.add_argument("--chains", type=int, default=8, help="answers to each")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=16, help="answers that TRL trains at once")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="ytrain-bench-"))).resolve()
    task = Task(**{field.name: getattr(arguments, field.name) for field in fields(Task)})
    runs: dict[str, list[Run]] = {name: [] for name in COMPETITORS}
    for seed in range(1, arguments.seeds + 1):
        for name in sorted(COMPETITORS, reverse=seed % 2 == 0):
            run_folder = folder / f"{name}-{seed}"
            measured = COMPETITORS[name](task, run_folder, seed)
            runs[name].append(Run(measured, share_right(run_folder / "output", task.threads)))
            print(f"  seed {seed} {name}: {measured.tokens_per_second:.0f} sampled tokens/s", flush=True)
    print(table(task, runs))


def table(task: Task, runs: dict[str, list[Run]]) -> str:
    lines = [
        f"\n{task}",
        "| trainer | seconds a step (each seed) | sampled tokens/s | sampled tokens a CPU-second | peak GiB |"
        " whole run, s | right of 64 afterwards |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_name in runs.items():
        measured = [run.measured for run in of_name]
        seconds = [each.seconds / each.steps for each in measured]
        lines.append(
            f"| {name} | {median(seconds):.1f} ({', '.join(f'{each:.1f}' for each in seconds)})"
            f" | {median(each.tokens_per_second for each in measured):.0f}"
            f" | {median(each.tokens_per_cpu_second for each in measured):.0f}"
            f" | {max(each.peak_bytes for each in measured) / 2**30:.2f}"
            f" | {median(each.total_seconds for each in measured):.0f}"
            f" | {', '.join(f'{run.right:.0%}' for run in of_name)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
