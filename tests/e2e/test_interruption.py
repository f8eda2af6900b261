"""A run that is stopped or killed anywhere and started again goes on as if nothing had happened, to the last bit."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from run_folders import checkpoints, course, files_of, saved, steps_written, write_job
from tests.conftest import write_chats

pytestmark = pytest.mark.e2e

STEPS_PER_EPOCH = 10
VALIDATION = "file://./chats.jsonl"
FULL: dict[str, Any] = {
    "optimization": {"learningRate": 1e-3, "epochs": 14, "batchSequences": 2},
    "checkpoint": {"everySteps": 7},
}
LORA = FULL | {"model.lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}
WINDOWS = FULL | {"sft.window": {"tokens": 5}, "optimization.epochs": 2}
JOBS = {"full": FULL, "lora": LORA, "windows": WINDOWS}


@dataclass(frozen=True)
class Uninterrupted:
    """A run from start to end, to compare with."""

    directory: Path
    course: list[tuple[Any, ...]]
    output: dict[str, bytes]


@pytest.fixture(scope="module")
def uninterrupted(
    ytrain: Commands, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Uninterrupted]:
    """The uninterrupted run of a kind of job, run once."""
    done: dict[str, Uninterrupted] = {}

    def run(kind: str) -> Uninterrupted:
        if kind not in done:
            directory = tmp_path_factory.mktemp(kind)
            write_chats(directory / "chats.jsonl", 20)
            write_job(directory, model_folder, JOBS[kind])
            ytrain(directory, "run", "tiny.yaml", "--workdir", "whole").expect(0)
            done[kind] = Uninterrupted(directory, course(directory / "whole"), files_of(directory / "whole/output"))
        return done[kind]

    return run


@pytest.mark.parametrize(
    ("kind", "number", "after"),
    [
        ("full", signal.SIGINT, 3),
        ("lora", signal.SIGTERM, 3),
        ("lora", signal.SIGINT, STEPS_PER_EPOCH + 3),
        ("windows", signal.SIGTERM, 3),
    ],
)
def test_stopped_run_saves_and_goes_on_bit_equal(
    ytrain: Commands, uninterrupted: Callable[[str], Uninterrupted], kind: str, number: signal.Signals, after: int
) -> None:
    whole = uninterrupted(kind)
    run = whole.directory / f"stopped-{number.name}-{after}"
    arguments = ("run", "tiny.yaml", "--workdir", run.name)

    running = ytrain.start(whole.directory, *arguments).until(lambda: steps_written(run) >= after)
    stopped = running.send(number).wait()

    stopped.expect(143, number.name, "Run the same command to go on")
    saved = steps_written(run)
    assert after <= saved < len(whole.course)
    assert f"step-{saved:06d}" in checkpoints(run)
    assert not (run / "output").exists()

    ytrain(whole.directory, *arguments).expect(0, f"going on from step-{saved:06d}")
    assert course(run) == whole.course
    assert weights(files_of(run / "output")) == weights(whole.output)


def test_evaluation_that_a_stop_came_before_is_made_up_for(
    ytrain: Commands, uninterrupted: Callable[[str], Uninterrupted], model_folder: Path
) -> None:
    directory = uninterrupted("full").directory
    run = directory / "measured"
    changes = FULL | {"evaluation": {"everySteps": 1}, "optimization.epochs": 3}
    write_job(directory, model_folder, changes, name="measured")
    arguments = ("run", "measured.yaml", "--workdir", run.name)
    running = ytrain.start(directory, *arguments).until(lambda: steps_written(run) >= 3)
    running.send(signal.SIGTERM).wait().expect(143)

    ytrain(directory, *arguments).expect(0, "going on from")
    measured = [entry["step"] for entry in json.loads((run / "evaluation.json").read_text())["history"]]
    assert measured == list(range(1, 3 * STEPS_PER_EPOCH))


@pytest.mark.parametrize(
    ("kind", "after"),
    [("full", 9), ("lora", STEPS_PER_EPOCH + 6), ("windows", 25)],
)
def test_killed_run_goes_on_from_its_last_checkpoint_bit_equal(
    ytrain: Commands, uninterrupted: Callable[[str], Uninterrupted], kind: str, after: int
) -> None:
    whole = uninterrupted(kind)
    run = whole.directory / "killed"
    arguments = ("run", "tiny.yaml", "--workdir", run.name)

    running = ytrain.start(whole.directory, *arguments).until(lambda: steps_written(run) >= after and saved(run))
    assert running.send(signal.SIGKILL).wait().code == -signal.SIGKILL
    assert after <= steps_written(run) < len(whole.course)

    ytrain(whole.directory, *arguments).expect(0, "going on from step-0")
    assert course(run) == whole.course
    assert weights(files_of(run / "output")) == weights(whole.output)


def test_killed_before_the_first_checkpoint_leaves_room_for_any_job(
    ytrain: Commands, uninterrupted: Callable[[str], Uninterrupted], model_folder: Path
) -> None:
    whole = uninterrupted("full")
    run = whole.directory / "early"
    never = FULL | {"checkpoint.everySteps": 1000}
    write_job(whole.directory, model_folder, never, name="first")
    first = ytrain.start(whole.directory, "run", "first.yaml", "--workdir", run)
    first.until(lambda: steps_written(run) >= 1).send(signal.SIGKILL).wait()

    write_job(whole.directory, model_folder, FULL | {"data.validation": [{"source": VALIDATION}]}, name="second")
    assert "going on" not in ytrain(whole.directory, "run", "second.yaml", "--workdir", run).expect(0).output
    assert course(run) == whole.course
    assert json.loads((run / "evaluation.json").read_text())["before"]["validation"]["tokens"] > 0


def test_second_interrupt_ends_at_once_and_the_last_checkpoint_stays(
    ytrain: Commands, place: Path, model_folder: Path
) -> None:
    long_step = {"data.train": [{"source": "file://./chats.jsonl", "repeat": 40}], "optimization.batchSequences": 400}
    write_job(place, model_folder, {**long_step, "optimization.epochs": 1, "checkpoint": {"everySteps": 1}})
    run = place / "runs/tiny"

    running = ytrain.start(place, "run", "tiny.yaml").until(lambda: (run / "checkpoints/step-000001").is_dir())
    running.send(signal.SIGINT).until(lambda: "once more ends at once" in running.output)
    running.send(signal.SIGINT).wait().expect(130)

    assert "step-000001" in checkpoints(run)
    assert len(course(run)) == 1
    ytrain(place, "run", "tiny.yaml").expect(0, "going on from step-000001")
    assert [step[0] for step in course(run)] == [1, 2]


def weights(output: dict[str, bytes]) -> dict[str, bytes]:
    """The weight files of an output."""
    return {name: content for name, content in output.items() if name.endswith(".safetensors")}
