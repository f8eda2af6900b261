"""A worker that comes late, over HTTP, with real ranks: the other begins without, and takes it in at a checkpoint."""

from pathlib import Path

import pytest
from run_folders import steps_written
from tests.faults.conftest import Machines, job, wait_until

pytestmark = pytest.mark.faults


def test_worker_0_is_taken_in_later(machines: Machines, model_folder: Path) -> None:
    """Rank 0, which reads, writes and reports, moves to it from the worker that began."""
    file = job(machines, model_folder, workers=2, workers__minReplicas=1, optimization__epochs=100_000)
    launcher = machines.launcher(file)
    early = machines.worker(1)
    launcher.until_it_says("generation 1: running with 1 of 2 workers")
    early.until(lambda: steps_written(machines.run) > 0)
    late = machines.worker(0)
    launcher.until_it_says("generation 2: running")
    before = steps_written(machines.run)
    assert before > 0, "it saved before it made room"
    wait_until(lambda: steps_written(machines.run) > before, lambda: launcher.output)
    assert len(early.ranks()) == len(late.ranks()) == 1
