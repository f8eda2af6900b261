"""A state is copied, handed to a thread in parts of bounded size, and what the thread raises is not lost."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import Tensor

from ytrain.engine.world import World
from ytrain.training import background
from ytrain.training.background import BackgroundWrite, Part
from ytrain.training.checkpoint import Checkpoints, Position, checkpoint_status, read_position, restore
from ytrain_api.errors import TrainingError
from ytrain_api.status import CheckpointStatus

pytestmark = pytest.mark.unit
LIMIT = 60.0
"""Seconds that no wait here should take."""


@pytest.fixture
def parts_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PART_BYTES", 2 * torch.zeros(4).nbytes)


def state(count: int) -> Iterator[tuple[str, Tensor]]:
    return ((f"w{number}", torch.full((4,), float(number))) for number in range(count))


def test_training_goes_on_while_the_state_it_had_is_written(tmp_path: Path) -> None:
    weights, may_write = torch.ones(4), Event()
    written: list[Part] = []

    def write(parts: Iterator[Part]) -> None:
        assert may_write.wait(LIMIT)
        written.extend(parts)

    writing = BackgroundWrite(write)
    writing.take([("w", weights)])
    weights += 1
    may_write.set()
    writing.join()
    writing.raise_failure()
    assert [part["w"].tolist() for part in written] == [[1, 1, 1, 1]]


@pytest.mark.usefixtures("parts_of_two")
def test_copies_wait_for_the_disk() -> None:
    copied, written, most_ahead = 0, 0, 0

    def counted() -> Iterator[tuple[str, Tensor]]:
        nonlocal copied, most_ahead
        for named in state(40):
            copied += 1
            most_ahead = max(most_ahead, copied - written)
            yield named

    def write(parts: Iterator[Part]) -> None:
        nonlocal written
        for part in parts:
            written += len(part)

    writing = BackgroundWrite(write)
    writing.take(counted())
    writing.join()
    assert written == 40
    assert most_ahead <= 4 * 2 + 1  # one part being filled, two that wait, one being written; and the next tensor


@pytest.mark.usefixtures("parts_of_two")
def test_a_failed_write_takes_the_rest_and_is_told() -> None:
    def write(parts: Iterator[Part]) -> None:
        next(parts)
        raise OSError("no disk")

    writing = BackgroundWrite(write)
    writing.take(state(40))
    writing.join()
    with pytest.raises(OSError, match="no disk"):
        writing.raise_failure()


def test_a_state_that_cannot_be_had_is_not_written(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, Tensor]]:
        yield "w0", torch.zeros(4)
        raise RuntimeError("a peer is gone")

    checkpoints = Checkpoints(tmp_path, keep=1)
    with pytest.raises(RuntimeError, match="a peer is gone"):
        checkpoints.save(position(1), broken(), World())
    checkpoints.abandon()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_whole_in_their_order(tmp_path: Path) -> None:
    told: list[CheckpointStatus] = []
    checkpoints = Checkpoints(tmp_path, keep=2, saved=told.append)
    for step in range(1, 6):
        checkpoints.save(position(step), [("w", torch.full((4,), float(step)))], World())
    checkpoints.finish(World())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000005"]
    newest = Checkpoints(tmp_path, keep=2).latest(pytest.fail)
    assert newest is not None
    assert read_position(newest) == position(5)
    assert [status.step for status in told] == [1, 2, 3, 4, 5]
    assert told[-1] == checkpoint_status(newest)
    assert (told[-1].path, told[-1].complete) == (str(newest), True)
    assert len({status.digest for status in told}) == 5
    restore(newest, lambda tensors: torch.testing.assert_close(tensors["w"], torch.full((4,), 5.0)), World(), seed=0)


def test_what_a_killed_removal_left_is_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(position(step), state(2), World())
        checkpoints.finish(World())
        if step == 2:
            (tmp_path / "step-000001/manifest.json").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]


def test_a_full_disk_is_told_by_the_next_save_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(position(1), state(2), World())
    checkpoints.finish(World())

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    checkpoints.save(position(2), state(2), World())
    for told in (lambda: checkpoints.save(position(3), state(2), World()), lambda: checkpoints.finish(World())):
        with pytest.raises(TrainingError, match=r"step-000002 could not be written.* complete checkpoint: step-000001"):
            told()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def position(step: int) -> Position:
    return Position(step=step, epoch=0.5, data_digest="d", labels_trained=7)
