"""Whole optimizer steps: what they divide by, and that the settings which must not matter do not (float32, 2e-5)."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_models import random_model, random_samples, segments

from ytrain.data.rows import build_row
from ytrain.engine.base import OptimizerSettings
from ytrain.engine.torch_engine import TorchEngine
from ytrain.engine.world import World
from ytrain.models.language_model import FrozenModel
from ytrain.objective import weights
from ytrain.objective.head import Objective, label_losses
from ytrain.report.live import open_progress
from ytrain.training.checkpoint import Checkpoints, Position
from ytrain.training.loop import Loop, LoopSettings
from ytrain.training.metrics import MetricsLog
from ytrain.training.plan import Plan
from ytrain.training.selection import Selection, keys, largest
from ytrain.training.stop import StopRequest
from ytrain.training.supervised import SupervisedLearner

pytestmark = pytest.mark.invariant
folders = itertools.count()


def reference() -> FrozenModel:
    """A model that finds other tokens hard."""
    return FrozenModel(random_model(hidden_size=16, head_dim=4))


def run(tmp_path: Path, objective: Objective, keep: float | None = None, **settings: Any) -> list[dict[str, Any]]:
    """Train two epochs; the lines of metrics.jsonl."""
    folder = tmp_path / str(next(folders))
    folder.mkdir()
    samples, model = random_samples(), random_model()
    plan: dict[str, Any] = {
        "seed": 1, "epochs": 2, "max_steps": None, "batch_tokens": None, "batch_sequences": 3, "row_tokens": 64,
        "packing": True, "window_tokens": None,
    }  # fmt: skip
    loop = Loop(
        learner=SupervisedLearner(
            model=model,
            engine=TorchEngine(model.trainable(), OptimizerSettings(weight_decay=0.0, gradient_clip=0.0)),
            objective=objective,
            samples=samples,
            start=FrozenModel(random_model()),
            teacher=FrozenModel(random_model(hidden_size=16, head_dim=4)),
            selection=Selection(reference=reference(), keep_fraction=keep) if keep else None,
            plan=Plan(
                lengths=np.array([len(sample.input_ids) for sample in samples]),
                label_counts=np.array([sample.supervised.sum() for sample in samples]),
                **{**plan, **settings},
            ),
        ),
        settings=LoopSettings(
            learning_rate=lambda step, total: 1e-2,
            checkpoint_seconds=math.inf,
            checkpoint_steps=None,
            evaluate_steps=None,
            data_digest="",
        ),
        checkpoints=Checkpoints(folder / "checkpoints", keep=1),
        metrics=MetricsLog(folder, after=0),
        progress=open_progress(Console(quiet=True)),
        stop=StopRequest(),
        evaluate=lambda step: None,
        position=Position(step=0, epoch=0.0, data_digest="", labels_trained=0),
    )
    position = loop.run()
    loop.metrics.close()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert position.labels_trained == sum(line["supervisedTokens"] for line in lines)
    return lines


def curve(lines: list[dict[str, Any]], *names: str) -> list[float]:
    return [line[name] for line in lines for name in names or ("loss", "weightedLoss", "gradientNorm")]


@pytest.mark.parametrize("changed", [{"packing": False}, {"row_tokens": 1000}, {"row_tokens": 32}])
def test_rows_do_not_matter(tmp_path: Path, changed: dict[str, Any]) -> None:
    objective = Objective(weigh=weights.nlirg(), rescale=True, anchor_weight=0.1, teacher_share=0.3)
    assert curve(run(tmp_path, objective, **changed)) == pytest.approx(curve(run(tmp_path, objective)), rel=2e-5)


@pytest.mark.parametrize("changed", [{"packing": False}, {"row_tokens": 1000}])
def test_rows_do_not_matter_to_steps_of_full_rows(tmp_path: Path, changed: dict[str, Any]) -> None:
    objective = Objective(weigh=weights.nlirg(), rescale=True)
    steps: dict[str, Any] = {"batch_sequences": None, "batch_tokens": 64, "step_row_tokens": 32, "row_tokens": 32}
    packed = run(tmp_path, objective, **steps)
    assert len(packed) == 4 and curve(packed, "tokens")[0] > 32
    assert curve(run(tmp_path, objective, **{**steps, **changed})) == pytest.approx(curve(packed), rel=2e-5)


@pytest.mark.parametrize("changed", [{"packing": False}, {"row_tokens": 1000}, {"row_tokens": 32}])
def test_rows_do_not_matter_to_which_tokens_are_chosen(tmp_path: Path, changed: dict[str, Any]) -> None:
    objective = Objective(weigh=weights.nlirg())
    chosen = curve(run(tmp_path, objective, keep=0.3))
    assert curve(run(tmp_path, objective, keep=0.3, **changed)) == pytest.approx(chosen, rel=2e-5)


def test_the_tokens_with_the_largest_loss_above_the_references_are_trained(tmp_path: Path) -> None:
    model, samples, gaps = random_model(), random_samples(), []
    with model.evaluating():
        for segment in segments(samples):
            row = build_row(samples, [segment])
            ours, theirs = (
                label_losses(m.hidden(row)[row.label_rows_R], row.labels_R, m.head())[0] for m in (model, reference())
            )
            gaps += zip((ours - theirs).tolist(), ours.tolist(), strict=True)
    kept = [loss for _, loss in sorted(gaps, reverse=True)[: round(0.3 * len(gaps))]]
    objective = Objective(weigh=weights.cross_entropy())
    line = run(tmp_path, objective, keep=0.3, batch_sequences=len(samples))[0]
    assert line["loss"] == pytest.approx(sum(loss for _, loss in gaps) / len(gaps), rel=2e-5)
    assert line["weightedLoss"] == pytest.approx(sum(kept) / len(gaps), rel=2e-5)
    assert line["weightHistogram"][0] == len(gaps) - len(kept) and line["weightHistogram"][-1] == len(kept)
    rescaled = run(tmp_path, Objective(weigh=weights.cross_entropy(), rescale=True), keep=0.3, batch_sequences=5)[0]
    assert rescaled["weightedLoss"] == pytest.approx(sum(kept) / len(kept), rel=2e-5)


def test_all_tokens_kept_is_no_choice(tmp_path: Path) -> None:
    objective = Objective(weigh=weights.nlirg())
    assert curve(run(tmp_path, objective, keep=1.0)) == pytest.approx(curve(run(tmp_path, objective)), rel=2e-6)


VALUES = st.lists(st.floats(width=32), min_size=1, max_size=50)


@given(values=VALUES, fraction=st.floats(0.01, 1.0))
def test_the_limit_is_that_of_sorting(values: list[float], fraction: float) -> None:
    numbers = np.array(values, dtype=np.float32)
    ordered = sorted(numbers.tolist(), key=lambda value: (math.isnan(value), value), reverse=True)
    limit = ordered[max(1, round(fraction * len(values))) - 1]
    reached = keys(numbers) >= largest(numbers, fraction, World())
    expected = np.isnan(numbers) if math.isnan(limit) else (numbers >= limit) | np.isnan(numbers)
    assert reached.tolist() == expected.tolist()


def test_the_loss_is_the_mean_over_the_labels_of_the_step(tmp_path: Path) -> None:
    """With one sample a step and no update yet, the first line is the plain cross entropy of that sample."""
    model, samples = random_model(), random_samples()
    line = run(tmp_path, Objective(weigh=weights.cross_entropy()), batch_sequences=1)[0]
    with torch.no_grad(), model.generating() as module:
        means = []
        for sample in samples:
            ids = torch.from_numpy(sample.input_ids.astype(np.int64))
            losses = torch.nn.functional.cross_entropy(module(ids[None]).logits[0, :-1], ids[1:], reduction="none")
            means.append(losses[torch.from_numpy(sample.supervised[1:])].mean().item())
    assert min(abs(line["loss"] - mean) for mean in means) < 1e-5
    assert line["weightedLoss"] == pytest.approx(line["loss"], rel=1e-6)


def test_rescale_divides_by_the_mean_weight(tmp_path: Path) -> None:
    plain, rescaled = (run(tmp_path, Objective(weigh=weights.nlirg(), rescale=rescale))[0] for rescale in (False, True))
    factor = rescaled["weightedLoss"] / plain["weightedLoss"]
    assert factor > 1.05
    assert rescaled["gradientNorm"] / plain["gradientNorm"] == pytest.approx(factor, rel=1e-5)
    # Weights of one are their own mean.
    ones = [run(tmp_path, Objective(weigh=weights.cross_entropy(), rescale=rescale)) for rescale in (False, True)]
    assert curve(ones[0]) == pytest.approx(curve(ones[1]), rel=1e-6)


def test_a_window_beyond_the_longest_answer_is_a_step_per_sample(tmp_path: Path) -> None:
    objective = Objective(weigh=weights.nlirg())
    windows = run(tmp_path, objective, window_tokens=1000)
    assert curve(windows) == pytest.approx(curve(run(tmp_path, objective, batch_sequences=1)), rel=2e-5)


def test_an_anchor_at_the_start_has_no_gradient_and_then_holds_back(tmp_path: Path) -> None:
    free, held = (
        run(tmp_path, Objective(weigh=weights.cross_entropy(), anchor_weight=weight)) for weight in (0.0, 30.0)
    )
    assert held[0]["gradientNorm"] == pytest.approx(free[0]["gradientNorm"], rel=1e-3)
    assert held[-1]["loss"] > free[-1]["loss"] + 0.1
