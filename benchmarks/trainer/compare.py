"""ytrain against TRL's SFTTrainer in one run: tokens a second, peak memory, and the loss of the model each one saves.

`make bench` runs it, for chats and, with --texts, for continued pre-training. Every competitor gets the same records,
global batch, learning rate, float32, threads, and a process of its own; the order turns round with every round.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import competitor
from records import MAX_TOKENS, write_records, write_texts

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
YTRAIN = Path(sys.executable).with_name("ytrain")
TRL_PYTHON = REPOSITORY / ".venv-bench/bin/python"
LEARNING_RATE = {"lora": 2e-4, "full": 2e-5}
BATCH_ROWS = 4
"""Rows of MAX_TOKENS tokens in an optimizer step of whoever packs."""
BATCH_SEQUENCES = 16
"""Records in an optimizer step of whoever does not: about as many tokens."""

TRL_SETTINGS = {
    "packed": ["--packing", "--batch", "1", "--accumulation", str(BATCH_ROWS)],
    "unpacked": ["--batch", "1", "--accumulation", str(BATCH_SEQUENCES)],
}
"""The fastest that were found for each kind; benchmarks/README.md lists what was tried."""


@dataclass(frozen=True)
class Task:
    """What every competitor is given."""

    model: Path
    train: Path
    heldout: Path
    method: str
    threads: int
    texts: bool
    """Continued pre-training on texts; else chats, of which the answers are learned."""

    @property
    def environment(self) -> dict[str, str]:
        return thread_environment(self.threads)


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that give a process `threads` threads, which sleep while they wait and leave the cores to others."""
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}


def run_trl(task: Task, folder: Path, kind: str) -> competitor.Measurement:
    command = [str(TRL_PYTHON), str(HERE / "trl_run.py"), "--model", str(task.model), "--data", str(task.train)]
    command += ["--folder", str(folder), "--method", task.method, "--learning-rate", str(LEARNING_RATE[task.method])]
    command += ["--max-tokens", str(MAX_TOKENS), "--threads", str(task.threads), *TRL_SETTINGS[kind]]
    if task.texts:
        command += ["--packing-strategy", "bfd_split"]
    return competitor.run(command, folder / "metrics.jsonl", task.environment, folder.with_suffix(".log"))


def run_ytrain(task: Task, folder: Path) -> competitor.Measurement:
    job = folder.with_suffix(".yaml")
    job.write_text(json.dumps(ytrain_job(task), indent=1), encoding="utf-8")
    command = [str(YTRAIN), "run", str(job), "--workdir", str(folder), "--device", "cpu"]
    command += ["--cache", str(folder.with_suffix(".cache"))]
    return competitor.run(command, folder / "metrics.jsonl", task.environment, folder.with_suffix(".log"))


def ytrain_job(task: Task) -> dict[str, object]:
    """The job that asks of ytrain what trl_run.py asks of TRL."""
    model: dict[str, object] = {"source": f"file://{task.model}", "precision": "float32"}
    if task.method == "lora":
        model["lora"] = {"rank": 16, "alpha": 32}
    optimization = {
        "learningRate": LEARNING_RATE[task.method],
        "epochs": 1,
        "batchTokens": BATCH_ROWS * MAX_TOKENS,
        "schedule": "constant",
        "warmupFraction": 0,
        "weightDecay": 0.01,
        "gradientClip": 1.0,
    }
    return {
        "apiVersion": "ytrain.io/v1alpha1",
        "kind": "YTrainJob",
        "metadata": {"name": f"bench-{task.method}"},
        "spec": {
            "model": model,
            "data": {"train": [{"source": f"file://{task.train}"}], "maxTokens": MAX_TOKENS},
            "cpt" if task.texts else "sft": {"loss": {"kind": "crossEntropy"}},
            "optimization": optimization,
            "workers": {"deviceResource": "none"},
        },
    }


COMPETITORS = {
    "ytrain": run_ytrain,
    "trl packed": lambda task, folder: run_trl(task, folder, "packed"),
    "trl unpacked": lambda task, folder: run_trl(task, folder, "unpacked"),
}


def heldout_loss(task: Task, model: Path) -> float:
    command = [sys.executable, str(HERE / "heldout.py"), str(model), str(task.heldout), "--base", str(task.model)]
    environment = {**os.environ, **task.environment}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def compare(task: Task, names: list[str], rounds: int, folder: Path) -> None:
    """Runs every competitor in each round and prints the table of one method."""
    measured: dict[str, list[competitor.Measurement]] = {name: [] for name in names}
    losses: dict[str, float] = {}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            run_folder = folder / f"{task.method}-{name.replace(' ', '-')}-{turn}"
            measured[name].append(COMPETITORS[name](task, run_folder))
            print(f"  round {turn + 1} {name}: {measured[name][-1].tokens_per_second:.0f} tokens/s", flush=True)
            if turn == 0:
                losses[name] = heldout_loss(task, run_folder / "output")
            shutil.rmtree(run_folder)
    print(
        f"\n{task.method}, {task.threads} threads, float32; held-out loss before: {heldout_loss(task, task.model):.3f}"
    )
    print("| trainer | steps | tokens/s (rounds) | tokens a CPU-second | peak GiB | whole run, s | held-out loss |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in measured.items():
        each = ", ".join(f"{run.tokens_per_second:.0f}" for run in runs)
        print(
            f"| {name} | {runs[0].steps + 1} | {median(run.tokens_per_second for run in runs):.0f} ({each})"
            f" | {median(run.tokens_per_cpu_second for run in runs):.0f}"
            f" | {max(run.peak_bytes for run in runs) / 2**30:.2f} | {median(run.total_seconds for run in runs):.0f}"
            f" | {losses[name]:.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=REPOSITORY / ".quickstart/models/SmolLM2-135M-Instruct")
    parser.add_argument(
        "--folder", type=Path, help="for records, logs and runs; must not exist (default: a temporary one)"
    )
    parser.add_argument("--records", type=int, default=100, help="to train on (default: 100, about 25,000 tokens)")
    parser.add_argument("--texts", action="store_true", help="continued pre-training on texts instead of chats")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=list(LEARNING_RATE), default=list(LEARNING_RATE))
    parser.add_argument("--competitors", nargs="+", choices=list(COMPETITORS), default=list(COMPETITORS))
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="ytrain-bench-"))).resolve()
    model = arguments.model.resolve()
    if arguments.texts:
        train, heldout = write_texts(folder, train=min(arguments.records, 71), held_out=8)
    else:
        train, heldout = write_records(folder, model, train=arguments.records, held_out=32)
    for method in arguments.methods:
        task = Task(model, train, heldout, method, arguments.threads, arguments.texts)
        compare(task, arguments.competitors, arguments.rounds, folder)


if __name__ == "__main__":
    main()
