"""What a launcher leaves as its termination message: whole where it fits, and never more than Kubernetes keeps."""

from typing import Any

import pytest

from ytrain.launcher.status import TERMINATION_BYTES, fitted
from ytrain_api.protocol import LastWord, LauncherStatus
from ytrain_api.status import Failure, Progress, WorkerCount

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
