"""Run folders as the trainer leaves them, for the tests of the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

JOB = """\
apiVersion: ytrain.io/v1alpha1
kind: YTrainJob
metadata: {name: support-bot}
spec:
  model: {source: "file:///models/base", lora: {rank: 8}}
  sft: {loss: {kind: nlirg}}
---
apiVersion: v1
kind: Secret
metadata: {name: hub}
stringData: {token: do-not-show-this}
"""

RESULT = {
    "job": "support-bot",
    "state": "Succeeded",
    "step": 20,
    "epoch": 2.0,
    "digests": {"output": "sha256:aa", "data": "sha256:bb", "config": "sha256:cc"},
    "versions": {"torch": "2.13.0"},
    "device": "cpu",
    "precision": "float32",
    "parameters": {"total": 1000, "trainable": 100, "movedFraction": 1.0},
    "data": {"read": 30, "used": 29, "skipped": 1, "reasons": {"the answer is empty": 1}},
    "memory": {"estimatedBytes": 4 * 2**30, "peakBytes": 3 * 2**30},
    "timing": {"loading": 1.0, "training": 10.0},
    "output": {
        "path": "/models/support-bot",
        "verified": {"maxLogitDifference": 1e-6, "mergedMaxLogitDifference": None},
    },
}

RunFolder = Callable[..., Path]


def metrics_line(step: int, **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    line = {
        "step": step,
        "epoch": step / 10,
        "loss": 2.0 / step,
        "weightedLoss": 1.0 / step,
        "learningRate": 1e-4,
        "gradientNorm": 1.5,
        "supervisedTokens": 100,
        "tokens": 300,
        "tokensPerSecond": 600.0,
        "seconds": 0.5,
        "peakMemoryBytes": 3 * 2**30,
        "dataWaitSeconds": 0.01,
        "weightHistogram": [step % 7] * 20,
    }
    return line | changes


def rl_figures(step: int, **changes: Any) -> dict[str, Any]:
    """What a step with rewards adds to its line, under `rl`."""
    figures = {
        "rewardMean": 0.1 * step,
        "rewardDeviation": 0.3,
        "groups": 8,
        "mixedGroups": 6,
        "leaves": 90,
        "failedRewards": 0,
        "sampledTokens": 800,
        "forwardedTokens": 990,
        "answerTokens": 12.0,
        "truncatedShare": 0.25,
        "forwardedPerLeaf": 11.0,
        "forwardedPerLeafAlone": 40.5,
        "prunedShare": 0.05,
        "entropy": 2.0,
        "clipFraction": 0.01,
        "logProbGap": 0.003,
        "largestLogProbGap": 0.03,
        "klToStart": 0.02 * step,
        "trainedGroups": 6,
        "mixedPerThousandTokens": 7.5,
        "sampleSeconds": 0.3,
        "rewardSeconds": 0.1,
    }
    return figures | changes


def node(parent: int, text: str, tokens: int = 4, entropy: float = 1.5) -> dict[str, Any]:
    """A segment of a sample tree."""
    return {"parent": parent, "tokens": tokens, "entropy": entropy, "text": text}


def leaf(number: int, reward: float | None, **changes: Any) -> dict[str, Any]:
    """The end of an answer."""
    return {"node": number, "mass": 1.0, "ended": True, "reward": reward, "failure": None} | changes


def sample_file(step: int, **changes: Any) -> dict[str, Any]:
    """A sample tree as a step leaves it: two answers share a beginning, a third does not."""
    tree = {
        "step": step,
        "place": "train.jsonl:3",
        "prompt": "When is it?",
        "nodes": [
            node(-1, "It is", tokens=10),
            node(0, " noon.", tokens=2),
            node(0, " late.", tokens=3),
            node(-1, "Now."),
        ],
        "leaves": [leaf(1, 1.0), leaf(2, 0.5, mass=3.0), leaf(3, 0.0)],
    }
    return tree | changes


def evaluation_point(step: int, correct: int, retention_loss: float, **changes: Any) -> dict[str, Any]:
    """One evaluation: a task of 64 samples and one retention text whose loss starts at 2."""
    example = {"prompt": "2 + 3 =", "expected": "5", "answer": "5" if correct else "four", "correct": correct > 0}
    point = {
        "step": step,
        "validation": {"loss": 2.0 - correct / 64, "tokens": 500},
        "retention": [{"name": "prose", "loss": retention_loss, "tokens": 900}],
        "tasks": [
            {
                "name": "sums",
                "metric": "exactMatch",
                "accuracy": correct / 64,
                "correct": correct,
                "samples": 64,
                "examples": [example],
            }
        ],
        "klToStart": {"value": 0.02 * step, "tokens": 700},
    }
    return point | changes


@pytest.fixture
def finished(run_folder: RunFolder) -> Path:
    """A run that succeeded, with three evaluations on its way."""
    points = [evaluation_point(0, 0, 2.0), evaluation_point(10, 20, 2.01), evaluation_point(20, 40, 2.08)]
    return run_folder(
        metrics=[metrics_line(step) for step in range(1, 21)],
        evaluation={"before": points[0], "history": points, "after": points[-1]},
        result=RESULT,
        skipped=[{"source": "train.jsonl", "line": 7, "reason": "the answer is empty"}],
    )


@pytest.fixture
def rewarded(run_folder: RunFolder) -> Path:
    """A run with rewards that succeeded, as it ends without an evaluation."""
    return run_folder(
        metrics=[
            metrics_line(step, weightedLoss=None, weightHistogram=None, rl=rl_figures(step)) for step in range(1, 21)
        ],
        result=RESULT,
        samples=[sample_file(step) for step in range(1, 21)],
    )


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    """Makes a run folder from its parts; a part that is None is a file that the run has not written."""

    def make(
        metrics: list[dict[str, Any]] | None = None,
        evaluation: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
        skipped: list[dict[str, Any]] | None = None,
        job: str | None = JOB,
        samples: list[dict[str, Any]] | None = None,
    ) -> Path:
        folder = tmp_path / "support-bot-run"
        folder.mkdir()
        for name, lines in (("metrics.jsonl", metrics), ("skipped.jsonl", skipped)):
            if lines is not None:
                (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name, value in (("evaluation.json", evaluation), ("result.json", result)):
            if value is not None:
                (folder / name).write_text(json.dumps(value))
        for tree in samples or []:
            (folder / "samples").mkdir(exist_ok=True)
            (folder / "samples" / f"step-{tree['step']:06d}.json").write_text(json.dumps(tree))
        if job is not None:
            (folder / "job.yaml").write_text(job)
        return folder

    return make
