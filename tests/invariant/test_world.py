"""How ranks part: none is gone while another may still read what it sent."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from tests.ports import held_port

from ytrain.engine.world import World

pytestmark = pytest.mark.invariant

LIMIT_SECONDS = 600.0


def wait_for(path: Path) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


def rank(number: int, port: int, folder: Path, stays: bool) -> None:
    """Rank 1 is done first; rank 0 is not until it has seen that, and then parts too, or ends without a word."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World(number, 2)
    world.listen()
    world.connect(torch.device("cpu"))
    world.wait()
    if number == 1:
        (folder / "waits").touch()
        world.part()
        os._exit(0 if not stays or (folder / "done").exists() else 1)
    wait_for(folder / "waits")
    if stays:
        (folder / "done").touch()
        world.part()
    os._exit(0)


@pytest.mark.parametrize("stays", [True, False])
def test_a_rank_waits_for_those_that_are_not_done(tmp_path: Path, stays: bool) -> None:
    context = multiprocessing.get_context("spawn")
    with held_port() as port:
        processes = [context.Process(target=rank, args=(number, port, tmp_path, stays)) for number in (0, 1)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT_SECONDS)
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_rank_that_met_nobody_waits_for_nobody() -> None:
    World(1, 2).part()
