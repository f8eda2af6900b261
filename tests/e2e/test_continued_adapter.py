"""`lora.startFrom`: training goes on from an adapter, and the drift is measured from that adapter."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Commands
from peft import PeftModel
from run_folders import course, load_model, logits_of, write_job
from safetensors.torch import load_file, save_file
from tests.conftest import write_chats

pytestmark = pytest.mark.e2e

LORA = {"rank": 4, "alpha": 8}
IDS = list(range(40, 70))


@pytest.fixture(scope="module")
def adapter(ytrain: Commands, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learned something."""
    directory = tmp_path_factory.mktemp("first")
    write_chats(directory / "chats.jsonl", 20)
    write_job(directory, model_folder, {"model.lora": LORA, "optimization.learningRate": 0.02})
    ytrain(directory, "run", "tiny.yaml").expect(0)
    return directory / "runs/tiny/output"


def continued(lora: dict[str, Any], adapter: Path, learning_rate: float) -> dict[str, Any]:
    return {
        "model.lora": {**LORA, **lora, "startFrom": f"file://{adapter}"},
        "optimization": {"learningRate": learning_rate, "epochs": 1, "batchSequences": 10},
    }


def test_run_starts_at_the_adapter_and_drifts_from_it(
    ytrain: Commands, place: Path, model_folder: Path, adapter: Path
) -> None:
    write_job(place, model_folder, continued({}, adapter, 1e-9), name="still")
    write_job(place, model_folder, continued({}, adapter, 0.02), name="moving")
    drift = {}
    for name in ("still", "moving"):
        ytrain(place, "run", f"{name}.yaml").expect(0)
        evaluation = json.loads((place / "runs" / name / "evaluation.json").read_text())
        assert evaluation["before"]["klToStart"]["value"] == 0
        drift[name] = evaluation["after"]["klToStart"]["value"]
    assert abs(drift["still"]) < 1e-6 < 1e-3 < drift["moving"]

    first, still, moving = (
        logits_of(PeftModel.from_pretrained(load_model(model_folder), folder), IDS)
        for folder in (adapter, place / "runs/still/output", place / "runs/moving/output")
    )
    assert (still - first).abs().max() < 1e-4
    assert (moving - first).abs().max() > 1e-2
    assert (logits_of(load_model(model_folder), IDS) - first).abs().max() > 1e-2


def test_dropout_of_the_job_counts_not_the_adapters(
    ytrain: Commands, place: Path, model_folder: Path, adapter: Path
) -> None:
    first_loss = {}
    for name, dropout in (("none", 0.0), ("half", 0.5)):
        write_job(place, model_folder, continued({"dropout": dropout}, adapter, 1e-3), name=name)
        ytrain(place, "run", f"{name}.yaml").expect(0)
        first_loss[name] = course(place / "runs" / name)[0][2]
    assert first_loss["half"] != first_loss["none"]


def test_anchor_holds_to_the_adapter(ytrain: Commands, place: Path, model_folder: Path, adapter: Path) -> None:
    """At the start the distance to the start is 0, so the anchor adds nothing to the first step's loss."""
    changes = continued({}, adapter, 1e-3)
    write_job(place, model_folder, changes, name="free")
    write_job(place, model_folder, changes | {"sft": {"baseAnchor": {"weight": 10}}}, name="held")
    for name in ("free", "held"):
        ytrain(place, "run", f"{name}.yaml").expect(0)
    free, held = course(place / "runs/free")[0], course(place / "runs/held")[0]
    assert held[2] == pytest.approx(free[2], abs=1e-6)
    assert held[3] == pytest.approx(free[3], abs=1e-5)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rank": 8}, ["rank 4 and alpha 8", "rank 8 and alpha 8"]),
        ({"alpha": 16}, ["rank 4 and alpha 8", "rank 4 and alpha 16"]),
        ({"targets": ["q_proj"]}, ["q_proj", "k_proj"]),
    ],
)
def test_adapter_of_another_shape_is_refused(
    ytrain: Commands, place: Path, model_folder: Path, adapter: Path, lora: dict[str, Any], words: list[str]
) -> None:
    write_job(place, model_folder, continued(lora, adapter, 1e-3))
    ytrain(place, "run", "tiny.yaml").expect(2, "spec.model.lora.startFrom", *words)
    assert not (place / "runs/tiny/checkpoints").exists()


def test_adapter_of_a_larger_model_is_refused(ytrain: Commands, place: Path, model_folder: Path, adapter: Path) -> None:
    foreign = shutil.copytree(adapter, place / "foreign")
    tensors = load_file(foreign / "adapter_model.safetensors")
    save_file({name: torch.cat([t, t], dim=-1) for name, t in tensors.items()}, foreign / "adapter_model.safetensors")
    write_job(place, model_folder, continued({}, foreign, 1e-3))
    ytrain(place, "run", "tiny.yaml").expect(2, "spec.model.lora.startFrom")
