"""A folder is written whole or not at all."""

from pathlib import Path

import pytest

from ytrain.models.folder import staged
from ytrain_api.errors import TrainingError

pytestmark = pytest.mark.unit


def test_it_takes_the_place_of_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out") as stage:
        (stage / "file").write_text("whole")
        assert not any((tmp_path / "out").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out/file").read_text() == "whole"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_somebody_else_wrote_meanwhile_stays(tmp_path: Path, kind: str) -> None:
    theirs = tmp_path / "out" if kind == "file" else tmp_path / "out/theirs"
    with (
        pytest.raises(TrainingError, match="out: something was written there meanwhile"),
        staged(tmp_path / "out") as s,
    ):
        (s / "file").write_text("ours")
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and theirs.read_text() == "theirs"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), staged(tmp_path / "out") as stage:
        (stage / "file").write_text("half")
        raise KeyError
    assert not any(tmp_path.iterdir())
