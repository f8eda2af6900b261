"""Live progress in a log and in a terminal, with a clock that the test turns."""

import io
from collections.abc import Callable
from itertools import pairwise

import pytest
from rich.console import Console

from ytrain.report import open_progress
from ytrain.report.live import LOG_SECONDS, LogProgress, RecentRate, TerminalProgress

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(step: int, **changes: float) -> dict[str, float]:
    return {"step": step, "loss": 2.5, "tokensPerSecond": 1234.0, "learningRate": 5e-6, "seconds": 2.0} | changes


@pytest.fixture
def log() -> tuple[LogProgress, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return LogProgress(Console(file=stream, width=40), clock), stream, clock


def test_the_display_follows_the_console() -> None:
    forms: list[tuple[bool, Callable]] = [(True, TerminalProgress), (False, LogProgress)]
    for is_terminal, kind in forms:
        progress = open_progress(Console(file=io.StringIO(), force_terminal=is_terminal))
        assert isinstance(progress, kind)
        progress.close()


def test_a_log_line_holds_all_numbers_on_one_line(log) -> None:
    progress, stream, _ = log
    progress.step(line(10), total_steps=100)
    assert stream.getvalue() == "step 10/100 (10%)  loss 2.500  1,234 tok/s  lr 5.0e-06  3 min 00 s left\n"


def test_a_log_gets_the_first_the_last_and_few_lines_between(log) -> None:
    progress, stream, clock = log
    for step in range(1, 101):
        clock.now = step * 1.0
        progress.step(line(step), total_steps=100)
    steps = [int(text.split("/")[0].removeprefix("step ")) for text in stream.getvalue().splitlines()]
    assert steps[0] == 1 and steps[-1] == 100
    assert all(later - earlier >= LOG_SECONDS for earlier, later in pairwise(steps[:-1]))
    assert len(steps) == 8


def test_phases_and_notes_reach_the_log_unchanged(log) -> None:
    progress, stream, _ = log
    progress.phase("tokenising")
    progress.note("a note with [brackets] that is longer than the console is wide")
    progress.close()
    assert stream.getvalue().splitlines() == [
        "tokenising ...",
        "a note with [brackets] that is longer than the console is wide",
    ]


def test_a_log_says_what_a_long_phase_is_at_now_and_then(log) -> None:
    progress, stream, clock = log
    progress.phase("tokenising")
    for clock.now in range(0, 40, 2):
        progress.activity(f"at {clock.now}")
    assert stream.getvalue().splitlines() == ["tokenising ...", "at 16", "at 32"]


def test_a_terminal_leaves_each_phase_with_its_time() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = TerminalProgress(Console(file=stream, force_terminal=True, color_system=None, width=120), clock)
    progress.phase("loading [model]")
    clock.now = 4.25
    progress.phase("training")
    progress.step(line(1), total_steps=3)
    progress.close()
    assert "loading [model]" in stream.getvalue() and "4.2 s" in stream.getvalue()


def test_one_slow_step_does_not_move_the_forecast() -> None:
    rate = RecentRate()
    assert rate.remaining(10) is None
    for seconds in (2.0, 2.0, 300.0, 2.0):
        rate.add(seconds)
    assert rate.remaining(10) == pytest.approx(20.0)


def test_a_step_without_a_loss_still_prints(log) -> None:
    progress, stream, _ = log
    progress.step({"step": 1, "seconds": 1.0}, total_steps=2)
    assert stream.getvalue().startswith("step 1/2")


@pytest.mark.parametrize(("reward", "words"), [(0.4321, "reward 0.432"), (0.0, "reward 0.000"), (None, "no reward")])
def test_a_step_with_rewards_shows_them_instead_of_the_loss(log, reward: float | None, words: str) -> None:
    progress, stream, _ = log
    progress.step(line(10) | {"rl": {"rewardMean": reward}}, total_steps=100)
    assert stream.getvalue() == f"step 10/100 (10%)  {words}  1,234 tok/s  lr 5.0e-06  3 min 00 s left\n"
