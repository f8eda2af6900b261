"""Worker processes end with their parent, however it ends, and their own death is told."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import wait_until_gone
from transformers import PreTrainedTokenizerFast

from ytrain.data.tokenising import vocabulary
from ytrain.data.workers import WORTHWHILE_BYTES, encoding, usable_cores
from ytrain_api.errors import TransientError

pytestmark = pytest.mark.unit
MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 10**6), ("150000 100000", 2), ("50000 100000", 1), (None, 10**6)]
)
def test_a_containers_limit_counts(tmp_path: Path, quota: str | None, cores: int) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path / "cpu.max") == min(cores, len(os.sched_getaffinity(0)))


PARENT = """
import json, multiprocessing, pathlib, sys
from ytrain.data.workers import WORTHWHILE_BYTES, encoding
with encoding(pathlib.Path(sys.argv[1]).read_text(), WORTHWHILE_BYTES) as (submit, ahead):
    submit(["Hi there"])()
    print(json.dumps([process.pid for process in multiprocessing.active_children()]), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(usable_cores() == 1, reason="one core has no worker processes")
def test_workers_end_with_a_parent_that_is_killed(make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(vocabulary(make_tokenizer(None)))
    command = [sys.executable, "-c", PARENT, str(tmp_path / "tokenizer.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert pids and all(Path(f"/proc/{pid}").exists() for pid in pids)
        parent.kill()
    wait_until_gone(pids)


@pytest.mark.skipif(usable_cores() == 1, reason="one core has no worker processes")
def test_a_killed_worker_may_be_tried_again(make_tokenizer: MakeTokenizer) -> None:
    before = set(multiprocessing.active_children())
    with (
        pytest.raises(TransientError, match="a process that tokenises was killed, probably for lack of memory"),
        encoding(vocabulary(make_tokenizer(None)), WORTHWHILE_BYTES) as (submit, _),
    ):
        assert [ids.tolist() for ids in submit(["Hi", ""])()][1] == []
        for worker in set(multiprocessing.active_children()) - before:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        submit(["Hi"])()
