"""Runs `ytrain` as a user does, in processes of its own or, where that does not matter, in this one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Commands, Ended
from tests.conftest import write_chats

from ytrain.cli import main


@pytest.fixture(scope="session")
def ytrain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands, each in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "YTRAIN_CACHE": str(tmp_path_factory.mktemp("cache"))}
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("command_server.py")],
        stdin=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    yield Commands(server, tmp_path_factory.mktemp("commands"))
    assert server.stdin is not None
    server.stdin.close()
    server.wait()


@pytest.fixture
def ytrain_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs a command in this process: for faults that end it before a process of its own would matter."""

    def run(directory: Path, *arguments: str | Path) -> Ended:
        monkeypatch.chdir(directory)
        monkeypatch.setenv("YTRAIN_CACHE", str(directory / "cache"))
        monkeypatch.setattr(sys, "argv", ["ytrain", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Ended(int(end.value.code or 0), captured.out + captured.err)

    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with 20 chats in `chats.jsonl`."""
    write_chats(tmp_path / "chats.jsonl", 20)
    return tmp_path
