"""When ranks start, stop and start again: reports and a clock in, orders out."""

from typing import Any

import pytest

from ytrain.launcher.coordinator import (
    GATHER_SECONDS,
    LOST_SECONDS,
    TAKEN_SECONDS,
    Coordinator,
    Refused,
    Rules,
)
from ytrain_api.protocol import Order, RankEnd, RankProgress, Report

pytestmark = pytest.mark.unit


class Workers:
    """Two agents and a clock around a coordinator."""

    def __init__(self, **rules: Any) -> None:
        self.now = 0.0
        usual = {"workers": 2, "least": 2, "restarts": 2, "hang_seconds": None, "join_seconds": None}
        self.rules = Rules(**{"job": "j", **usual, **rules})
        self.coordinator = Coordinator(self.rules, now=0.0)

    def report(self, index: int, state: str = "idle", generation: int = 0, **more: Any) -> Order:
        values = {
            "job": "j", "index": index, "incarnation": f"a{index}", "address": f"10.0.0.{index + 1}",
            "port": 4000 + index, "slots": 2, "state": state, "generation": generation,
            "ranks": 0 if state == "idle" else 4,
        }  # fmt: skip
        return self.coordinator.take(Report.model_validate({**values, **more}), self.now)

    def both(self, state: str = "idle", generation: int = 0, **more: Any) -> list[Order]:
        for index in (0, 1):
            self.report(index, state, generation, **more)
        return [self.coordinator.order(index) for index in (0, 1)]

    def running(self) -> "Workers":
        self.both()
        self.both("running", self.coordinator.generation)
        return self

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.coordinator.advance(self.now)


def end(rank: int, exit_code: int, **more: Any) -> RankEnd:
    return RankEnd(rank=rank, exit_code=exit_code, **more)


def training(step: int, beat: int = 0) -> list[RankProgress]:
    return [RankProgress(activity="training", step=step, total_steps=100, step_seconds=0.1, beat=beat)]


DONE = [end(0, 0, done=True), end(1, 0, done=True)]


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
