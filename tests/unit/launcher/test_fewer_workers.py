"""Ranks of fewer workers than the job wants (`workers.minReplicas`), and how the others are taken in."""

from typing import Any

import pytest
from two_workers import DONE, Workers, end, training

from ytrain.launcher.coordinator import GATHER_SECONDS, LOST_SECONDS, TAKEN_SECONDS
from ytrain_api.protocol import Order, RankProgress

pytestmark = pytest.mark.unit


def alone(**rules: Any) -> Workers:
    """Of two workers one trains: the other one did not come."""
    workers = Workers(least=1, **rules)
    while not workers.coordinator.running:
        workers.report(0)
        workers.pass_time(1.0)
    return workers


def runs_alone(workers: Workers, seconds: float) -> Order:
    """Time passes for one worker that trains, in the latest generation; its last order."""
    until, step = workers.now + seconds, 1
    while workers.now < until:
        workers.pass_time(1.0)
        generation, step = workers.coordinator.generation, step + 1
        moving = RankProgress(activity="training", step=step, total_steps=10_000, step_seconds=0.1, beat=step)
        order = workers.report(0, "running", generation, ranks=2, progress=[moving])
    return order


@pytest.mark.parametrize(("join_seconds", "waited"), [(None, GATHER_SECONDS), (30.0, 30.0)])
def test_enough_workers_begin_without_the_others(join_seconds: float | None, waited: float) -> None:
    workers = alone(join_seconds=join_seconds)
    assert workers.now == pytest.approx(waited, abs=2.0)
    order = workers.report(0)
    assert order.action == "run" and order.ranks is not None
    assert (order.ranks.first, order.ranks.world_size, workers.coordinator.absent) == (0, 2, 1)
    order = workers.report(0, "ended", 1, ranks=2, ends=DONE)
    assert (order.action, order.exit_code) == ("leave", 0)


def test_too_few_workers_wait_for_the_others() -> None:
    workers = Workers(workers=3, least=2)
    for _ in range(300):
        workers.report(2)
        workers.pass_time(1.0)
    assert not workers.coordinator.running and workers.coordinator.waiting_for() == "waiting for worker 0, 1 of 3"


def test_ranks_go_on_without_a_worker_that_is_lost() -> None:
    workers = Workers(least=1).running()
    while workers.now < LOST_SECONDS + GATHER_SECONDS + 3:
        workers.pass_time(1.0)
        workers.report(1, "running" if workers.coordinator.generation == 1 else "ended", 1)
    order = workers.report(1, "ended", 1)
    assert (order.action, order.generation) == ("run", 2) and order.ranks is not None
    assert (order.ranks.first, order.ranks.world_size, order.ranks.master_address) == (0, 2, "10.0.0.2")
    workers.report(1, "running", 2, ranks=2, progress=training(7))
    assert workers.coordinator.progress is not None and workers.coordinator.progress.step == 7, "it leads now"


def test_a_worker_that_comes_later_is_taken_in_at_a_checkpoint() -> None:
    workers = alone()
    workers.report(0, "running", 1, ranks=2)
    late = workers.report(1)
    assert late.action == "wait" and "take this worker in" in late.reason
    assert runs_alone(workers, GATHER_SECONDS - 2).action == "run", "they have only just begun"
    workers.report(1)
    workers.pass_time(3)
    assert workers.report(0, "running", 1, ranks=2).action == "stop" and workers.report(1).action == "wait"
    workers.report(0, "ended", 1, ranks=2, ends=[end(0, 143), end(1, 143)])
    zero, one = (workers.coordinator.order(index) for index in (0, 1))
    assert (zero.action, one.action, zero.generation) == ("run", "run", 2) and one.ranks is not None
    assert (one.ranks.first, one.ranks.world_size) == (2, 4)
    assert workers.coordinator.failure is None and workers.coordinator.absent == 0


def test_who_is_almost_done_does_not_stop_for_a_worker_that_comes_later() -> None:
    workers = alone()
    workers.report(1)
    nearly = [RankProgress(activity="training", step=90, total_steps=100, step_seconds=1.0)]
    for beat in range(200):
        workers.pass_time(1.0)
        workers.report(1)
        moving = [nearly[0].model_copy(update={"beat": beat})]
        assert workers.report(0, "running", 1, ranks=2, progress=moving).action == "run"


@pytest.mark.parametrize("how", ["lost", "replaced", "stopped"])
def test_who_has_no_ranks_may_go(how: str) -> None:
    workers = alone()
    workers.report(0, "running", 1, ranks=2)
    workers.report(1)
    if how == "lost":
        runs_alone(workers, LOST_SECONDS + 2)
        assert 1 not in workers.coordinator.members
    elif how == "replaced":
        workers.now += TAKEN_SECONDS + 1
        assert workers.report(1, incarnation="b1").action == "wait"
    else:
        order = workers.report(1, stopping=True)
        assert (order.action, order.exit_code) == ("leave", 143)
    assert workers.report(0, "running", 1, ranks=2).action == "run" and workers.coordinator.stopping is None


@pytest.mark.parametrize("stopped_ends", [True, False])
def test_a_rank_that_dies_while_it_stops_for_another_worker_is_a_failure(stopped_ends: bool) -> None:
    workers = alone()
    workers.report(0, "running", 1, ranks=2)
    workers.report(1)
    workers.pass_time(1.0)
    runs = GATHER_SECONDS + 2
    while workers.now < 2 * GATHER_SECONDS + runs and workers.report(0, "running", 1, ranks=2).action != "stop":
        workers.report(1)
        workers.pass_time(1.0)
    ends = [end(0, 143), end(1, 143 if stopped_ends else -9)]
    assert workers.report(0, "ended", 1, ranks=2, ends=ends).generation == 2
    assert (workers.coordinator.failure is None) == stopped_ends


def test_a_restarted_launcher_finds_ranks_that_began_without_a_worker() -> None:
    workers = Workers(least=1)
    assert workers.report(1, "running", 7, ranks=2, progress=training(40)).action == "run"
    workers.report(0)
    workers.pass_time(1.0)
    assert workers.coordinator.running and workers.coordinator.absent == 1
    assert workers.coordinator.progress is not None and workers.coordinator.progress.step == 40
    assert workers.report(0).action == "wait", "it waits until the others stop at a checkpoint"
