"""When ranks start, stop and start again: reports and a clock in, orders out."""

from typing import Any

import pytest
from two_workers import DONE, Workers, end, training

from ytrain.launcher.coordinator import LOST_SECONDS, TAKEN_SECONDS, Refused
from ytrain_api.protocol import RankProgress

pytestmark = pytest.mark.unit


def test_ranks_start_when_every_worker_is_there() -> None:
    workers = Workers()
    first = workers.report(0)
    assert (first.action, first.reason) == ("wait", "waiting for worker 1 of 2")
    zero, one = workers.both()
    assert {zero.action, one.action} == {"run"}
    assert zero.ranks is not None and one.ranks is not None
    assert (zero.ranks.first, one.ranks.first, one.ranks.world_size) == (0, 2, 4)
    assert (one.ranks.master_address, one.ranks.master_port) == ("10.0.0.1", 4000)
    assert zero.generation == 1


def test_done_needs_every_rank_to_say_so() -> None:
    workers = Workers().running()
    workers.report(0, "ended", 1, ends=DONE)
    assert workers.coordinator.outcome is None
    order = workers.report(1, "ended", 1, ends=[end(2, 0, done=True), end(3, 0, done=True)])
    assert (order.action, order.exit_code) == ("leave", 0)


def test_a_rank_that_ends_early_with_zero_is_a_failure() -> None:
    workers = Workers().running()
    order = workers.report(1, "running", 1, ends=[end(2, 0)])
    assert (order.action, order.generation) == ("wait", 2)
    assert workers.coordinator.failure is not None
    assert workers.coordinator.failure.message == "rank 2 ended before the job was done"


def test_a_killed_rank_ends_the_generation_and_the_next_starts_at_once() -> None:
    workers = Workers().running()
    order = workers.report(1, "running", 1, ends=[end(3, -9)])
    assert order.action == "wait"
    assert workers.report(0, "running", 1).action == "wait"
    workers.report(0, "ended", 1)
    zero, one = workers.both("ended", 1)
    assert (zero.action, one.action, zero.generation) == ("run", "run", 2)
    assert workers.coordinator.restarts == 1


def test_a_witness_is_not_the_cause() -> None:
    workers = Workers().running()
    workers.report(0, "running", 1, ends=[end(0, 5, kind="LostPeer", message="Connection closed by peer")])
    assert workers.coordinator.running
    workers.report(1, "running", 1, ends=[end(2, -11)])
    assert (
        workers.coordinator.failure is not None and "rank 2 was ended by SIGSEGV" in workers.coordinator.failure.message
    )


@pytest.mark.parametrize("code", [2, 3, 4])
def test_what_would_fail_alike_is_not_tried_again(code: int) -> None:
    workers = Workers().running()
    order = workers.report(0, "running", 1, ends=[end(0, code, kind="DataError", message="bad.jsonl:3: no answer")])
    assert (order.action, order.exit_code) == ("leave", code)
    assert "bad.jsonl:3" in order.reason


def fail_once(workers: Workers) -> None:
    generation = workers.coordinator.generation
    workers.both("ended", generation, ends=[end(0, 1)])


def test_the_budget_counts_failures_without_a_new_step() -> None:
    workers = Workers(restarts=2).running()
    for _ in range(3):
        fail_once(workers)
        workers.pass_time(5.0)
        workers.both("ended", workers.coordinator.generation - 1)
    assert workers.coordinator.outcome is not None
    assert workers.coordinator.outcome.exit_code == 5
    assert "2 restarts in a row gained no step" in workers.coordinator.outcome.message


def test_a_new_step_renews_the_budget() -> None:
    workers = Workers(restarts=1).running()
    for step in range(1, 6):
        generation = workers.coordinator.generation
        workers.report(0, "running", generation, progress=training(step, beat=step))
        fail_once(workers)
        workers.pass_time(1.0)
        workers.both("ended", generation)
        assert workers.coordinator.running, step


def test_steps_that_only_the_worker_of_the_dead_rank_has_told_are_a_gain() -> None:
    workers = Workers().running()
    workers.both("running", 1, progress=training(20))
    workers.report(1, "ended", 1, ends=[end(2, -9)], progress=training(20))
    workers.both()
    workers.both("running", 2, progress=training(10))
    workers.report(1, "ended", 2, ends=[end(2, -9)], progress=training(30))
    assert [order.action for order in workers.both()] == ["run", "run"]


def test_restarts_that_gain_nothing_come_slower() -> None:
    workers = Workers(restarts=5).running()
    waits = []
    for _ in range(4):
        fail_once(workers)
        began = workers.now
        while not workers.coordinator.running:
            workers.both("ended", workers.coordinator.generation - 1)
            workers.pass_time(0.25)
        waits.append(workers.now - began)
    assert waits == [0.0, 1.0, 2.0, 4.0]


def test_a_silent_worker_is_gone_and_named() -> None:
    workers = Workers().running()
    while workers.now < LOST_SECONDS + 1:
        workers.pass_time(0.5)
        workers.report(0, "running", 1)
    assert not workers.coordinator.running
    assert workers.coordinator.failure is not None
    assert workers.coordinator.failure.message.startswith("worker 1 is gone")


def test_a_replacement_takes_the_index_of_a_silent_worker_only() -> None:
    workers = Workers().running()
    with pytest.raises(Refused, match=r"index 1 is held by a worker at 10\.0\.0\.2") as refused:
        workers.report(1, incarnation="b1")
    assert not refused.value.final
    workers.now += TAKEN_SECONDS + 0.1
    order = workers.report(1, incarnation="b1")
    assert (order.action, order.generation) == ("wait", 2)
    workers.report(0, "ended", 1)
    assert workers.report(1, incarnation="b1").action == "run"


@pytest.mark.parametrize(
    ("change", "words"),
    [({"job": "another"}, "serves another job"), ({"index": 2}, r"--index 2: the job has workers 0 to 1")],
)
def test_strangers_are_turned_away_for_good(change: dict[str, Any], words: str) -> None:
    workers = Workers()
    with pytest.raises(Refused, match=words) as refused:
        workers.report(**{"index": 0, **change})
    assert refused.value.final


def test_a_missing_worker_fails_the_job_at_its_deadline() -> None:
    workers = Workers(join_seconds=30.0)
    while workers.now < 31:
        workers.pass_time(1.0)
        workers.report(0)
    assert workers.coordinator.outcome is not None
    assert (
        "waiting for worker 1 of 2 for 30 s, longer than policy.pendingDeadline" in workers.coordinator.outcome.message
    )


def test_a_restarted_launcher_lets_the_ranks_run() -> None:
    workers = Workers()
    for index in (0, 1):
        order = workers.report(index, "running", 7, progress=training(40))
        assert order.generation == 7
        assert order.action == "run"
    workers.pass_time(LOST_SECONDS - 1)
    workers.both("running", 7, progress=training(41, beat=1))
    workers.pass_time(LOST_SECONDS - 1)
    assert workers.coordinator.running
    assert workers.coordinator.restarts == 6


def test_a_restarted_launcher_notices_who_is_missing() -> None:
    workers = Workers()
    while workers.now < LOST_SECONDS + 1:
        workers.report(0, "running", 7)
        workers.pass_time(1.0)
    assert workers.coordinator.generation == 8
    assert (
        workers.coordinator.failure is not None and "worker 1 did not come back" in workers.coordinator.failure.message
    )


def test_a_restarted_launcher_and_agent_start_a_new_generation() -> None:
    workers = Workers()
    workers.report(0, "running", 7)
    order = workers.report(1, "idle", 0)
    assert (order.action, order.generation) == ("wait", 8)
    workers.report(0, "ended", 7)
    assert workers.report(1, "idle", 0).action == "run"
    assert workers.coordinator.generation == 8


def test_a_stale_generation_is_told_to_end() -> None:
    workers = Workers().running()
    workers.report(1, "ended", 1, ends=[end(2, -9)])
    order = workers.report(0, "running", 1)
    assert (order.action, order.generation) == ("wait", 2)


def test_a_stop_is_asked_of_all_and_ends_as_preempted() -> None:
    workers = Workers().running()
    assert workers.report(1, "running", 1, stopping=True).action == "stop"
    assert workers.report(0, "running", 1).action == "stop"
    workers.report(0, "ended", 1, ends=[end(0, 143), end(1, 143)])
    order = workers.report(1, "ended", 1, ends=[end(2, 143), end(3, 143)])
    assert (order.action, order.exit_code) == ("leave", 143)


def test_a_worker_that_told_its_end_and_left_is_not_missed() -> None:
    """Its ranks have saved and its pod is gone; the others may take long to write what they hold."""
    workers = Workers().running()
    workers.report(1, "ended", 1, stopping=True, ends=[end(2, 143), end(3, 143)])
    for _ in range(3):
        workers.pass_time(LOST_SECONDS - 1)
        assert workers.report(0, "running", 1).action == "stop"
    order = workers.report(0, "ended", 1, ends=[end(0, 143), end(1, 143)])
    assert (order.action, order.exit_code) == ("leave", 143)


@pytest.mark.parametrize("lost", [False, True])
def test_a_worker_that_cannot_save_does_not_fail_a_job_that_stops(lost: bool) -> None:
    """A spot node that is gone, a grace period that is over, a rank that is killed: the last checkpoint is as good."""
    workers = Workers().running()
    assert workers.report(1, "running", 1, stopping=True).action == "stop"
    if lost:
        workers.pass_time(LOST_SECONDS - 1)
        workers.report(0, "running", 1)
        workers.pass_time(2)
    else:
        workers.report(1, "ended", 1, stopping=True, ends=[end(2, -9), end(3, -9)])
    order = workers.report(0, "running", 1)
    assert (order.action, order.exit_code) == ("leave", 143)
    assert "while it was stopping" in order.reason
    assert workers.coordinator.failure is not None


def test_what_would_fail_again_fails_a_job_that_stops_too() -> None:
    workers = Workers().running()
    workers.report(1, "running", 1, stopping=True)
    order = workers.report(0, "ended", 1, ends=[end(0, 4, message="diverged"), end(1, 4, message="diverged")])
    assert (order.action, order.exit_code) == ("leave", 4)


def test_a_stop_before_the_start_ends_at_once() -> None:
    workers = Workers()
    workers.report(0)
    workers.coordinator.stop("asked")
    workers.pass_time(0.1)
    assert workers.coordinator.outcome is not None and workers.coordinator.outcome.exit_code == 143


@pytest.mark.parametrize(("hang_seconds", "limit"), [(None, 60.0), (5.0, 5.0)])
def test_no_step_is_a_hang_and_the_odd_rank_is_named(hang_seconds: float | None, limit: float) -> None:
    workers = Workers(hang_seconds=hang_seconds).running()
    workers.both("running", 1, progress=training(3, beat=3))
    while workers.coordinator.running and workers.now < 100:
        workers.pass_time(0.5)
        workers.both("running", 1, progress=training(3, beat=3))
    assert workers.now == pytest.approx(limit, abs=1.0)
    order = workers.report(0, "running", 1)
    assert (order.action, order.stacks) == ("wait", True)
    place, other = 'File "world.py", line 9 in wait', 'File "rows.py", line 5 in read'
    workers.report(0, "ended", 1, ends=[end(0, -9, stack=place), end(1, -9, stack=place)])
    workers.report(1, "ended", 1, ends=[end(2, -9, stack=other), end(3, -9, stack=place)])
    assert workers.coordinator.failure is not None
    assert workers.coordinator.failure.message.endswith(f"rank 2 stood in {other}; the others stood in {place}")
    assert workers.coordinator.running


@pytest.mark.parametrize("activity", ["saving", "evaluating", "loading the model"])
def test_only_training_can_hang(activity: str) -> None:
    workers = Workers().running()
    for _ in range(300):
        workers.pass_time(1.0)
        workers.both("running", 1, progress=[RankProgress(activity=activity, step=3, step_seconds=0.1)])
    assert workers.coordinator.running
