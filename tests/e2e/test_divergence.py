"""Numbers that are not finite: the run ends soon, says where, and the weights stay what they were."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Commands, Ended
from run_folders import read_lines, write_job
from safetensors.torch import load_file, save_file
from tests.conftest import make_model_folder

from ytrain.data import plan_epoch

pytestmark = pytest.mark.e2e

SAMPLES, SEED = 12, 42
POISON = "~"


@pytest.fixture
def poisoned_model(tmp_path: Path) -> Path:
    """A model whose embedding of one character is not a number."""
    folder = make_model_folder(tmp_path / "model", tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tensors["model.embed_tokens.weight"][vocabulary[POISON]] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_three_bad_steps_in_a_row_end_the_run(ytrain: Commands, tmp_path: Path, poisoned_model: Path) -> None:
    order = [int(group[0]) for group in plan_epoch(np.ones(SAMPLES), SEED, 0, batch_sequences=1)]
    poisoned = order[1:2] + order[4:7]  # one step alone, then three in a row
    with (tmp_path / "chats.jsonl").open("w") as file:
        for i in range(SAMPLES):
            question = f"what is {i}?" + (POISON if i in poisoned else "")
            file.write(json.dumps({"prompt": question, "response": "it"}) + "\n")
    changes = {
        "optimization": {"learningRate": 1e-3, "epochs": 1, "batchSequences": 1, "seed": SEED},
        "checkpoint": {"everySteps": 1, "keep": 10},
    }
    write_job(tmp_path, poisoned_model, changes)

    ended = ytrain(tmp_path, "run", "tiny.yaml")

    ended.expect(4, "not finite in 3 steps in a row", "step 7", f"chats.jsonl:{order[6] + 1}", "learningRate")
    run = tmp_path / "runs/tiny"
    lines = read_lines(run / "metrics.jsonl")
    assert [line["step"] for line in lines if line["loss"] is None] == [2, 5, 6]
    assert weights(run, 1).keys() and equal(weights(run, 1), weights(run, 2))
    assert not equal(weights(run, 3), weights(run, 4))
    assert equal(weights(run, 4), weights(run, 6))
    assert not (run / "output").exists()
    failure = json.loads((run / "result.json").read_text())["failure"]
    assert (failure["kind"], failure["exitCode"]) == ("Diverged", 4)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Trained weights of a checkpoint."""
    tensors = load_file(run / f"checkpoints/step-{step:06d}/tensors-00001.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name].nan_to_num(7.0), other[name].nan_to_num(7.0)) for name in one)


def test_model_of_infinite_weights_is_refused_before_training(ytrain_here: Callable[..., Ended], place: Path) -> None:
    folder = make_model_folder(place / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0] = torch.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_job(place, folder)
    ytrain_here(place, "run", "tiny.yaml").expect(2, "spec.model.source", "not finite")
    assert not (place / "runs/tiny/metrics.jsonl").exists()
