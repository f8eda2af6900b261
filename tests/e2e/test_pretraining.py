"""Continued pre-training from job file to output: a folder of texts, cut and packed, learned to the last token."""

import json
import signal
from pathlib import Path

import pytest
from commands import Commands
from run_folders import checkpoints, course, load_model, read_lines, write_job

pytestmark = pytest.mark.e2e

CPT = {"sft": ..., "cpt": {}, "data.train": [{"source": "file://./texts"}], "data.maxTokens": 64}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of 30 texts of 5 to 450 bytes, and two that are held out."""
    for folder, first, count in (("texts", 0, 30), ("held-out", 90, 2)):
        (tmp_path / folder).mkdir()
        for i in range(first, first + count):
            (tmp_path / folder / f"{i:03}.txt").write_text(f"Text {i}" + f", and {i} again" * (i % 30) + ".")
    return tmp_path


def test_a_folder_of_texts_is_learned_and_measured(ytrain: Commands, texts: Path, model_folder: Path) -> None:
    changes = {
        **CPT,
        "data.validation": [{"source": "file://./held-out"}],
        "evaluation.retention": [{"name": "chats", "source": "file://./texts/000.txt"}],
        "optimization": {"learningRate": 1e-3, "epochs": 2, "batchTokens": 512},
    }
    write_job(texts, model_folder, changes)
    ytrain(texts, "run", "tiny.yaml").expect(0)
    run = texts / "runs/tiny"
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["after"]["validation"]["loss"] < evaluation["before"]["validation"]["loss"]
    result = json.loads((run / "result.json").read_text())
    learned = sum(line["supervisedTokens"] for line in read_lines(run / "metrics.jsonl"))
    assert learned == 2 * result["data"]["supervisedTokens"]
    assert (result["data"]["used"], result["data"]["split"] > 0) == (30, True)
    assert load_model(run / "output").config.vocab_size > 0
    assert (run / "report.html").is_file()


def test_a_stopped_run_goes_on_with_the_same_steps(ytrain: Commands, texts: Path, model_folder: Path) -> None:
    optimization = {"learningRate": 1e-3, "epochs": 2, "batchTokens": 256}
    write_job(texts, model_folder, {**CPT, "optimization": optimization, "checkpoint": {"everySteps": 1}})
    ytrain(texts, "run", "tiny.yaml", "--workdir", "whole").expect(0)
    run = texts / "stopped"
    running = ytrain.start(texts, "run", "tiny.yaml", "--workdir", run)
    running.until(lambda: (run / "checkpoints").is_dir() and checkpoints(run)).send(signal.SIGTERM)
    running.wait().expect(143)
    ytrain(texts, "run", "tiny.yaml", "--workdir", run).expect(0)
    assert course(run) == course(texts / "whole")
