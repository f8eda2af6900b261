"""Runs from job file to output: what they leave behind, and that others read it as it is."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Commands
from peft import PeftModel
from run_folders import files_of, load_model, logits_of, read_lines, write_job
from safetensors.torch import load_file
from tests.conftest import write_chats
from transformers import AutoTokenizer

pytestmark = pytest.mark.e2e

CHAT = [{"role": "user", "content": "what is 3?"}, {"role": "assistant", "content": "3 is it"}]
NUMBERS = {
    "loss",
    "weightedLoss",
    "learningRate",
    "gradientNorm",
    "tokensPerSecond",
    "seconds",
    "dataWaitSeconds",
}
COUNTS = {"supervisedTokens", "tokens", "peakMemoryBytes"}


@dataclass(frozen=True)
class Finished:
    """A run that ended well."""

    directory: Path
    run: Path
    output: Path
    arguments: tuple[str, ...]
    printed: str

    @property
    def result(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.run / "result.json").read_text())
        return content


@pytest.fixture(scope="module")
def full(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Full fine-tuning by the installed command, with everything measured, and a record that cannot be used."""
    directory = tmp_path_factory.mktemp("full")
    write_chats(directory / "chats.jsonl", 150)
    with (directory / "chats.jsonl").open("a") as file:
        file.write("{this is no JSON}\n")
    write_chats(directory / "held-out.jsonl", 4, first=200)
    (directory / "prose.txt").write_text("All happy families are alike. " * 20)
    held_out = "file://./held-out.jsonl"
    changes = {
        "data.validation": [{"source": held_out}],
        "evaluation": {
            "everySteps": 5,
            "tasks": [{"name": "sums", "source": held_out, "samples": 2, "maxNewTokens": 3}],
            "retention": [{"name": "prose", "source": "file://./prose.txt"}],
        },
        "optimization.batchSequences": 20,
    }
    write_job(directory, model_folder, changes)
    done = subprocess.run(
        [Path(sys.executable).with_name("ytrain"), "run", "tiny.yaml", "--cache", "cache"],
        cwd=directory,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = directory / "runs/tiny"
    return Finished(directory, run, run / "output", ("run", "tiny.yaml", "--cache", "cache"), done.stdout + done.stderr)


@pytest.fixture(scope="module")
def lora(ytrain: Commands, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A LoRA, merged too, from a claim to a claim."""
    directory = tmp_path_factory.mktemp("lora")
    shutil.copytree(model_folder, directory / "volume/models/tiny")
    write_chats(directory / "chats.jsonl", 20)
    changes = {
        "model": {"source": "pvc://work/models/tiny", "lora": {"rank": 4, "alpha": 8}, "precision": "float32"},
        "optimization": {"epochs": 2, "batchSequences": 4, "learningRate": 0.02},
        "output": {"target": "pvc://work/results/tiny", "merge": True},
    }
    write_job(directory, model_folder, changes)
    arguments = ("run", "tiny.yaml", "--workdir", "here", "--claim", "work=volume")
    done = ytrain(directory, *arguments).expect(0)
    return Finished(directory, directory / "here", directory / "volume/results/tiny", arguments, done.output)


def test_run_folder_holds_what_the_design_says(full: Finished) -> None:
    written = {path.name for path in full.run.iterdir() if not path.name.startswith(".")}
    assert written == {
        "job.yaml",
        "metrics.jsonl",
        "evaluation.json",
        "skipped.jsonl",
        "checkpoints",
        "output",
        "report.html",
        "tensorboard",
        "result.json",
    }
    assert yaml.safe_load((full.run / "job.yaml").read_text())["spec"]["optimization"]["seed"] == 42
    assert list((full.run / "tensorboard").glob("events.*"))
    assert "<html" in (full.run / "report.html").read_text()
    assert not [path for path in full.run.rglob("*") if "partial" in path.name]


def test_whoever_may_read_the_output_folder_may_read_its_files(full: Finished) -> None:
    expected = (full.run / "output").stat().st_mode & 0o666
    modes = {path.name: path.stat().st_mode & 0o777 for path in (full.run / "output").iterdir()}
    assert set(modes.values()) == {expected}, modes


def test_every_step_has_a_line_of_numbers(full: Finished) -> None:
    lines = read_lines(full.run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert lines[-1]["epoch"] == 2.0
    for line in lines:
        assert all(math.isfinite(line[name]) for name in NUMBERS)
        assert all(isinstance(line[name], int) and line[name] > 0 for name in COUNTS)
        assert sum(line["weightHistogram"]) == line["supervisedTokens"]
    assert sum(line["supervisedTokens"] for line in lines) == 2 * full.result["data"]["supervisedTokens"]


def test_evaluation_is_recorded_before_during_and_after(full: Finished) -> None:
    evaluation = json.loads((full.run / "evaluation.json").read_text())
    before, after = evaluation["before"], evaluation["after"]
    assert (before["step"], after["step"]) == (0, 16)
    assert [entry["step"] for entry in evaluation["history"]] == [5, 10, 15]
    assert before["klToStart"] == {"value": 0.0, "tokens": 0}
    assert after["klToStart"]["value"] > 0
    assert after["validation"]["loss"] < before["validation"]["loss"]
    for entry in (before, after):
        assert [retained["name"] for retained in entry["retention"]] == ["prose"]
        assert [(task["name"], task["samples"]) for task in entry["tasks"]] == [("sums", 2)]


def test_unusable_record_is_told_with_its_line(full: Finished) -> None:
    (skipped,) = read_lines(full.run / "skipped.jsonl")
    assert skipped["source"].endswith("/chats.jsonl")
    assert skipped["line"] == 151
    assert "cannot be decoded" in skipped["reason"]
    data = full.result["data"]
    assert (data["read"], data["used"], data["skipped"]) == (151, 150, 1)
    assert "chats.jsonl:151" in full.printed


def test_result_says_what_was_made_of_what(full: Finished) -> None:
    result = full.result
    assert (result["state"], result["step"], result["epoch"]) == ("Succeeded", 16, 2.0)
    assert all(result["digests"][name] for name in ("output", "data", "config"))
    assert result["parameters"]["trainable"] == result["parameters"]["total"]
    assert result["output"]["verified"]["maxLogitDifference"] < 1e-3


def test_trained_model_loads_by_plain_transformers_with_the_trained_weights(full: Finished) -> None:
    model, tokenizer = load_model(full.output), AutoTokenizer.from_pretrained(full.output)
    trained = load_file(max((full.run / "checkpoints").iterdir()) / "tensors-00001.safetensors")
    for name, parameter in model.named_parameters():
        assert parameter.equal(trained[f"model.{name}"]), name
    ids = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    assert logits_of(model, ids).isfinite().all()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_finished_job_run_again_does_nothing_and_says_where_the_output_is(
    ytrain: Commands, kind: str, request: pytest.FixtureRequest
) -> None:
    finished: Finished = request.getfixturevalue(kind)
    before = files_of(finished.directory)
    ytrain(finished.directory, *finished.arguments).expect(0, "done already", str(finished.result["output"]["path"]))
    assert files_of(finished.directory) == before


def test_adapter_loads_by_peft_and_equals_its_merged_model(lora: Finished) -> None:
    base = load_model(lora.directory / "volume/models/tiny")
    tokenizer = AutoTokenizer.from_pretrained(lora.output)
    ids = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    start = logits_of(base, ids)
    adapted = logits_of(PeftModel.from_pretrained(base, lora.output), ids)
    merged = logits_of(load_model(lora.output / "merged"), ids)

    assert (adapted - start).abs().max() > 0.1
    assert (merged - adapted).abs().max() < 1e-4
    assert AutoTokenizer.from_pretrained(lora.output / "merged").chat_template == tokenizer.chat_template
    assert lora.result["output"]["verified"]["changeFromBase"] > 1e-3
    assert lora.result["parameters"]["trainable"] < lora.result["parameters"]["total"]


def test_merge_gives_the_adapters_logits(ytrain: Commands, lora: Finished, model_folder: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    ytrain(lora.directory, "merge", lora.output, merged, "--base", model_folder).expect(0, f"wrote {merged}")
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    adapted = logits_of(PeftModel.from_pretrained(load_model(model_folder), lora.output), ids)
    assert (logits_of(load_model(merged), ids) - adapted).abs().max() < 1e-4

    before = files_of(merged)
    ytrain(lora.directory, "merge", lora.output, merged).expect(2, f"DIR: {merged} is not empty")
    assert files_of(merged) == before


def test_report_is_written_anew_for_finished_and_unfinished_runs(
    ytrain: Commands, full: Finished, tmp_path: Path
) -> None:
    for name, missing in {"finished": (), "unfinished": ("result.json", "output", "report.html")}.items():
        run = shutil.copytree(full.run, tmp_path / name)
        for file in missing:
            shutil.rmtree(run / file) if (run / file).is_dir() else (run / file).unlink()
        (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() + '{"step": 17, "lo')
        ytrain(tmp_path, "report", run).expect(0, "tiny")
        assert "<html" in (run / "report.html").read_text()
    ytrain(tmp_path, "report", tmp_path).expect(2, "holds no run")


def test_run_goes_on_to_more_epochs(ytrain: Commands, lora: Finished) -> None:
    """Last, because it changes the run."""
    job = lora.directory / "tiny.yaml"
    job.write_text(job.read_text().replace("epochs: 2", "epochs: 3"))
    ytrain(lora.directory, *lora.arguments).expect(0, "going on from step-000010")
    assert [line["step"] for line in read_lines(lora.run / "metrics.jsonl")] == list(range(1, 16))
    assert lora.result["step"] == json.loads((lora.output / "ytrain.json").read_text())["step"] == 15
