"""Who may use a work folder, and what may lie in it before it is asked."""

from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from signal import SIG_IGN, SIGXFSZ, signal
from threading import Event, Thread

import pytest

from ytrain.training.run_folder import RunFolder
from ytrain_api.errors import SpecError, TransientError

pytestmark = pytest.mark.unit


def test_other_ranks_may_be_faster_than_rank_0(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.stacks.mkdir()
    (folder.inputs / "1/chats").mkdir(parents=True)
    with folder.claimed():
        folder.check("mine", "auto")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SpecError, match="is not empty and holds no run"):
        RunFolder(tmp_path).check("mine", "auto")


def test_killed_while_it_said_whose_run_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(folder, "job", tmp_path / "missing/job.yaml")  # the second of the two writes fails
    with pytest.raises(FileNotFoundError):
        folder.open("mine", "kind: YTrainJob")
    RunFolder(tmp_path).check("mine", "auto")


def test_the_owner_of_a_run_stays_where_it_can_no_longer_be_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open("mine", "kind: YTrainJob")
    (folder.checkpoints / "step-000001").mkdir(parents=True)
    soft, hard = getrlimit(RLIMIT_FSIZE)
    ignored = signal(SIGXFSZ, SIG_IGN)
    setrlimit(RLIMIT_FSIZE, (0, hard))  # as on a full disk, files can be emptied and not filled
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.open("mine", "kind: YTrainJob")
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
        signal(SIGXFSZ, ignored)
    folder.check("mine", "auto")
    assert folder.job.read_text() == "kind: YTrainJob"


def test_a_folder_in_use_is_refused_or_waited_for(tmp_path: Path) -> None:
    def wait() -> None:
        with RunFolder(tmp_path).claimed(wait_seconds=60):
            claimed.set()

    claimed = Event()
    waiting = Thread(target=wait)
    with RunFolder(tmp_path).claimed():
        with pytest.raises(SpecError, match="another process trains in this folder"):
            RunFolder(tmp_path).claimed().__enter__()
        with pytest.raises(TransientError, match="another process trains in this folder"):
            RunFolder(tmp_path).claimed(wait_seconds=0.1).__enter__()
        waiting.start()
        assert not claimed.is_set()
    waiting.join()
    assert claimed.is_set()
