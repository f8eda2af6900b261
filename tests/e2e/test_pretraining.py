"""Continued pre-training from job file to output: a folder of texts, cut and packed, learned to the last token."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Commands, Ended
from run_folders import checkpoints, course, load_model, read_lines, write_job
from tests.conftest import make_model_folder

pytestmark = pytest.mark.e2e

CPT = {"sft": ..., "cpt": {}, "data.train": [{"source": "file://./texts"}], "data.maxTokens": 64}
OPTIMIZATION = {"learningRate": 1e-3, "epochs": 2, "batchTokens": 256}


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
        "optimization": OPTIMIZATION,
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


def test_tokens_worth_learning_are_chosen_by_a_reference(
    ytrain: Commands, texts: Path, model_folder: Path, tmp_path: Path
) -> None:
    reference = make_model_folder(tmp_path / "reference", hidden_size=16)
    selection = {"referenceModel": f"file://{reference}", "keepFraction": 0.25}
    write_job(texts, model_folder, {**CPT, "cpt": {"selection": selection}, "optimization": OPTIMIZATION})
    ytrain(texts, "check", "tiny.yaml").expect(0)
    ytrain(texts, "run", "tiny.yaml").expect(0)
    for line in read_lines(texts / "runs/tiny/metrics.jsonl"):
        kept, wanted = line["supervisedTokens"] - line["weightHistogram"][0], round(0.25 * line["supervisedTokens"])
        assert wanted <= kept <= 1.1 * wanted  # of tokens that are worth the same, none or all are kept


def test_a_reference_with_another_vocabulary_is_refused(
    ytrain_here: Callable[..., Ended], texts: Path, model_folder: Path, tmp_path: Path
) -> None:
    reference = make_model_folder(tmp_path / "reference", vocab_size=300)
    write_job(texts, model_folder, {**CPT, "cpt": {"selection": {"referenceModel": f"file://{reference}"}}})
    words = ["spec.cpt.selection.referenceModel", "its vocabulary has 300 tokens", "shares the tokenizer"]
    ytrain_here(texts, "check", "tiny.yaml").expect(1, *words)
    ytrain_here(texts, "run", "tiny.yaml").expect(2, *words)


def test_two_ranks_learn_what_one_learns_and_go_on_alone(ytrain: Commands, texts: Path, model_folder: Path) -> None:
    """Their shares of the texts are unequal, and the last step has a row for one of them only."""
    write_job(texts, model_folder, {**CPT, "optimization": OPTIMIZATION, "checkpoint": {"everySteps": 1}})
    ytrain(texts, "run", "tiny.yaml", "--workdir", "one").expect(0)
    ytrain(texts, "run", "tiny.yaml", "--workdir", "two", "--processes", "2").expect(0)
    one, two = course(texts / "one"), course(texts / "two")
    assert len(one) == len(two) > 4
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
    longer = OPTIMIZATION | {"epochs": 3}
    write_job(texts, model_folder, {**CPT, "optimization": longer, "checkpoint": {"everySteps": 1}})
    ytrain(texts, "run", "tiny.yaml", "--workdir", "two").expect(0)
    ytrain(texts, "run", "tiny.yaml", "--workdir", "one", "--processes", "2").expect(0)
    one, two = course(texts / "one"), course(texts / "two")
    assert len(one) == len(two)
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)


def test_a_corpus_shorter_than_one_step(ytrain: Commands, texts: Path, model_folder: Path) -> None:
    job = {**CPT, "data.train": [{"source": "file://./held-out"}], "optimization": {"learningRate": 1e-3, "epochs": 2}}
    write_job(texts, model_folder, job)
    ytrain(texts, "check", "tiny.yaml").expect(0, "2 steps in all")
    ytrain(texts, "run", "tiny.yaml").expect(0)
    assert [line["epoch"] for line in read_lines(texts / "runs/tiny/metrics.jsonl")] == [1.0, 2.0]


def test_a_stop_ends_tokenising_and_leaves_nothing(ytrain: Commands, texts: Path, model_folder: Path) -> None:
    (texts / "texts/long.txt").write_text("so it goes on and on\n" * 600_000)
    write_job(texts, model_folder, CPT)
    running = ytrain.start(texts, "run", "tiny.yaml", "--cache", "cache")
    running.until(lambda: any(path.stat().st_size for path in (texts / "cache").glob(".*.draft/tokens.arrow")))
    running.send(signal.SIGTERM).wait().expect(143, "stopped by SIGTERM while tokenising; nothing was trained")
    assert list((texts / "cache").iterdir()) == []


def test_a_stopped_run_goes_on_with_the_same_steps(ytrain: Commands, texts: Path, model_folder: Path) -> None:
    optimization = OPTIMIZATION | {"epochs": 6}  # it must not be over before the signal comes
    write_job(texts, model_folder, {**CPT, "optimization": optimization, "checkpoint": {"everySteps": 1}})
    ytrain(texts, "run", "tiny.yaml", "--workdir", "whole").expect(0)
    run = texts / "stopped"
    running = ytrain.start(texts, "run", "tiny.yaml", "--workdir", run)
    running.until(lambda: (run / "checkpoints").is_dir() and checkpoints(run)).send(signal.SIGTERM)
    running.wait().expect(143)
    ytrain(texts, "run", "tiny.yaml", "--workdir", run).expect(0)
    assert course(run) == course(texts / "whole")
