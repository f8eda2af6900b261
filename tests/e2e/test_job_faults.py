"""Faults of the job, the model folder and the data: what, where, what next; the exit code; nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Commands, Ended
from run_folders import write_job
from safetensors.torch import load_file, save_file
from tests.conftest import make_model_folder

pytestmark = pytest.mark.e2e

Here = Callable[..., Ended]
SPEC, DATA, FAILED = 2, 3, 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["cannot be read", "give the path of a YAML file"]),
        ("", ["empty; it should hold a YTrainJob"]),
        ("a: [", ["not YAML"]),
    ],
)
def test_a_file_that_is_no_job(ytrain_here: Here, place: Path, text: str | None, words: list[str]) -> None:
    if text is not None:
        (place / "job.yaml").write_text(text)
    ytrain_here(place, "run", "job.yaml").expect(SPEC, "job.yaml", *words)
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimization.learnignRate": 1e-3}, ["spec.optimization.learnignRate", "did you mean learningRate"]),
        ({"optimization.epochs": "three"}, ["spec.optimization.epochs", "three"]),
        ({"cpt": {}}, ["exactly one of sft, cpt, rl, corpus"]),
        ({"sft": ..., "cpt": {}}, ["spec.cpt: not available in this version; available: sft"]),
        ({"sft": ..., "corpus": {}}, ["spec.corpus: not available in this version"]),
        ({"deepspeed": {}}, ["spec.deepspeed: not available in this version"]),
        ({"output.target": "s3://bucket/out"}, ["s3:// is not available in this version"]),
        ({"suspend": True}, ["spec.suspend"]),
        ({"model.source": "file:///nowhere"}, ["file:///nowhere", "no such file or folder"]),
        ({"model.source": "pvc://models/x"}, ["claim 'models' has no folder here", "--claim models=DIR"]),
        ({"output.target": "pvc://models/x"}, ["spec.output.target", "--claim models=DIR"]),
        ({"model.lora": {"rank": 4, "targets": ["query"]}}, ["spec.model.lora.targets", "q_proj"]),
    ],
)
def test_a_wrong_job(
    ytrain_here: Here, place: Path, model_folder: Path, changes: dict[str, Any], words: list[str]
) -> None:
    write_job(place, model_folder, changes)
    ytrain_here(place, "run", "tiny.yaml").expect(SPEC, *words)
    assert not (place / "runs/tiny/output").exists() and not (place / "runs/tiny/checkpoints").exists()


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: [path.unlink() for path in folder.glob(name)] and None  # type: ignore[func-returns-value]


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("config.json"), ["has no config.json"]),
        (without("tokenizer*"), ["has no tokenizer", "copy the tokenizer files"]),
        (without("chat_template.jinja"), ["has no chat template", "data.chatTemplate"]),
        (pickled, ["no .safetensors weights", "pickled .bin and .pt weights are refused"]),
    ],
)
def test_a_wrong_model_folder(
    ytrain_here: Here, place: Path, model_folder: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    shutil.copytree(model_folder, place / "model")
    spoil(place / "model")
    write_job(place, place / "model")
    ytrain_here(place, "run", "tiny.yaml").expect(SPEC, *words)


def test_a_teacher_with_another_vocabulary(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    make_model_folder(place / "teacher", vocab_size=300)
    write_job(place, model_folder, {"sft.teacher": {"source": f"file://{place}/teacher"}})
    ytrain_here(place, "run", "tiny.yaml").expect(SPEC, "spec.sft.teacher.source", "300 tokens")


def test_folders_that_hold_something_else(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder)
    for folder, words in (("taken", "is not empty and holds no run"), ("runs/tiny/output", "is not empty")):
        (place / folder).mkdir(parents=True)
        (place / folder / "precious").write_text("kept")
        options = ["--workdir", "taken"] if folder == "taken" else ["--workdir", "runs/other"]
        job = write_job(place, model_folder, {"output.target": f"file://./{folder}"}) if options[1] != "taken" else None
        ytrain_here(place, "run", job or "tiny.yaml", *options).expect(SPEC, words)
        assert [path.name for path in (place / folder).iterdir() if path.name != ".lock"] == ["precious"]


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", DATA, ["chats.jsonl: the file holds no record"]),
        (b'{"messages": []}\n' * 9, DATA, ["9 of 9 records cannot be used", "chats.jsonl:1"]),
        (b"\xff\xfe\x00", DATA, ["UTF-16", "chats.jsonl"]),
        (b'{"prompt": "caf\xe9"}\n', DATA, ["not UTF-8", "byte 0xe9"]),
    ],
)
def test_wrong_data_leave_nothing_behind_and_may_be_mended(
    ytrain_here: Here, place: Path, model_folder: Path, content: bytes, code: int, words: list[str]
) -> None:
    good = (place / "chats.jsonl").read_bytes()
    (place / "chats.jsonl").write_bytes(content)
    write_job(place, model_folder, {"optimization.epochs": 1})
    ytrain_here(place, "run", "tiny.yaml").expect(code, *words)
    run = place / "runs/tiny"
    left = {path.name for path in run.iterdir()}
    assert left <= {".lock", ".identity", ".inputs", "job.yaml", "skipped.jsonl", "result.json", "report.html"}
    assert json.loads((run / "result.json").read_text())["state"] == "Failed"
    (place / "chats.jsonl").write_bytes(good)
    ytrain_here(place, "run", "tiny.yaml").expect(0, "done")


def test_a_loss_that_is_not_a_number_ends_the_run_and_moves_no_weight(
    ytrain: Commands, place: Path, model_folder: Path
) -> None:
    shutil.copytree(model_folder, place / "model")
    weights = load_file(place / "model/model.safetensors")
    weights["model.norm.weight"][0] = float("inf")
    save_file(weights, place / "model/model.safetensors", metadata={"format": "pt"})
    write_job(place, place / "model", {"optimization.epochs": 3, "data.packing": False})
    ended = ytrain(place, "run", "tiny.yaml")
    ended.expect(SPEC, "gives other logits")  # the check before training finds it first


def test_a_learning_rate_that_explodes_ends_the_run(ytrain: Commands, place: Path, model_folder: Path) -> None:
    changes = {"optimization.learningRate": 1.0, "optimization.epochs": 30, "optimization.weightDecay": 1.0}
    explosive = {"initializer_range": 1e18}
    make_model_folder(place / "model", **explosive)
    write_job(place, place / "model", {**changes, "checkpoint.everySteps": 1})
    ended = ytrain(place, "run", "tiny.yaml")
    assert ended.code in (SPEC, FAILED), ended.output
