"""Which folders of checkpoints are taken for what, and which of them stay."""

from pathlib import Path

import pytest
import torch

from ytrain.engine.world import World
from ytrain.training.checkpoint import Checkpoints, Position
from ytrain_api.errors import TransientError

pytestmark = pytest.mark.unit


def save(folder: Path, step: int, *, keep: int = 2) -> None:
    """A checkpoint of one tensor."""
    checkpoints = Checkpoints(folder, keep=keep)
    position = Position(step=step, epoch=0.0, data_digest="", labels_trained=0)
    checkpoints.save(position, [("model.weight", torch.ones(2))], World())
    checkpoints.finish(World())


def names(folder: Path) -> list[str]:
    """What lies in the folder."""
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> str:
    """The checkpoint that a run would go on from; none is damaged."""
    found = Checkpoints(folder, keep=2).latest(pytest.fail)
    assert found is not None
    return found.name


def test_a_million_steps_come_after_those_of_six_digits(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert newest(tmp_path) == "step-1000000"


def test_what_a_killed_save_left_is_removed_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".step-000007.partial").mkdir()
    (tmp_path / ".step-000007.partial/tensors-00001.safetensors").write_bytes(bytes(100))
    save(tmp_path, 8)
    assert names(tmp_path) == ["step-000008"]


def test_a_users_copy_is_no_checkpoint_and_stays(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-000001").rename(tmp_path / "step-000001.mine")
    for step in (2, 3):
        save(tmp_path, step, keep=1)
    assert names(tmp_path) == ["step-000001.mine", "step-000003"]
    assert newest(tmp_path) == "step-000003"


def test_a_checkpoint_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    state = tmp_path / "step-000002/state.json"
    state.unlink()
    state.symlink_to(state)  # opening it fails, and not because it is not there
    with pytest.raises(TransientError, match=r"step-000002 cannot be read: Too many levels.*remove the folder"):
        Checkpoints(tmp_path, keep=2).latest(pytest.fail)
