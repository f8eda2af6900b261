"""What a launcher leaves as its termination message: whole where it fits, and never more than Kubernetes keeps."""

from typing import Any

import pytest

from ytrain.launcher.status import TERMINATION_BYTES, fitted
from ytrain_api.protocol import LastWord, LauncherStatus
from ytrain_api.status import DataStatus, EvaluationStatus, Failure, NamedChange, OutputStatus, Progress, WorkerCount

pytestmark = pytest.mark.unit


def word(message: str = "rank 3 ran out of memory", **failure: Any) -> LastWord:
    status = LauncherStatus(
        job="tiny",
        state="Failed",
        generation=3,
        restarts=2,
        workers=WorkerCount(desired=2, ready=2),
        progress=Progress(step=17, total_steps=40),
        failure=Failure(message=message, rank=3, **failure),
        exit_code=5,
    )
    return LastWord(exit_code=5, message=message, status=status)


def read(text: bytes) -> LastWord:
    assert len(text) <= TERMINATION_BYTES
    return LastWord.model_validate_json(text)


def test_a_short_one_is_whole() -> None:
    assert read(fitted(word(last_lines=["one", "two"]))) == word(last_lines=["one", "two"])


def test_the_last_lines_go_first() -> None:
    kept = read(fitted(word(last_lines=["x" * 200] * 20)))
    assert kept.status is not None and kept.status.failure is not None
    assert (kept.status.failure.rank, kept.status.failure.last_lines or []) == (3, [])


@pytest.mark.parametrize("letter", ["a", "ä", "語", "\x00"])
def test_a_long_message_is_cut_and_says_how_it_ended(letter: str) -> None:
    kept = read(fitted(word(letter * 3900)))
    assert kept.exit_code == 5
    assert kept.message.startswith(letter * 600)


def test_the_figures_outlive_a_failure_that_is_too_long() -> None:
    kept = read(fitted(word("m" * 2500)))
    assert kept.status is not None and kept.status.progress is not None
    assert (kept.message, kept.status.progress.step) == ("m" * 2500, 17)


def measured(tasks: int) -> dict[str, Any]:
    named = [NamedChange(name=f"task-{i:02d}", before=0.1, after=0.2) for i in range(tasks)]
    return {
        "evaluation": EvaluationStatus(step=40, tasks=named),
        "data": DataStatus(read=20),
        "output": OutputStatus(path="pvc://models/out", digest="d" * 32),
    }


@pytest.mark.parametrize(
    ("exit_code", "failure", "tasks", "kept"),
    [
        (0, "m" * 500, 20, {"failure", "evaluation", "data", "output"}),
        (0, "m" * 2000, 40, {"evaluation", "data", "output"}),
        (0, "m" * 2000, 90, {"output"}),
        (5, "m" * 500, 90, {"failure", "data", "output"}),
        (5, "m" * 1800, 60, {"failure", "data", "output"}),
        (5, "m" * 2500, 60, set()),
    ],
)
def test_a_success_keeps_what_came_of_it_and_a_failure_its_reason(
    exit_code: int, failure: str, tasks: int, kept: set[str]
) -> None:
    long = word(failure, last_lines=["x" * 200] * 20)
    assert long.status is not None
    status = long.status.model_copy(update=measured(tasks))
    message = "done" if exit_code == 0 else failure
    read_back = read(fitted(LastWord(exit_code=exit_code, message=message, status=status))).status
    assert read_back is not None and read_back.progress is not None
    assert {name for name in ("failure", "evaluation", "data", "output") if getattr(read_back, name)} == kept
