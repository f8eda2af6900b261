"""What ranks find and what devices are used for: told by agents, kept by them, and taken up by the next launcher."""

from typing import Any

import pytest

from ytrain.launcher.coordinator import Coordinator, Rules
from ytrain.launcher.device_time import DeviceTime
from ytrain.launcher.status import launcher_status
from ytrain_api.protocol import Facts, Order, RankEnd, RankProgress, Report
from ytrain_api.status import CheckpointStatus, DataStatus, DeviceSeconds, OutputStatus

pytestmark = pytest.mark.unit

RULES = Rules(job="j", workers=2, least=2, restarts=2, hang_seconds=None, join_seconds=None)
DATA = Facts(data=DataStatus(read=20, used=19, skipped=1))


def checkpoint(step: int) -> Facts:
    return Facts(checkpoint=CheckpointStatus(step=step, path=f"/work/step-{step}", complete=True))


class Workers:
    """Two agents of two devices each, which talk to a launcher that may be another one every time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.coordinator = Coordinator(RULES, now=0.0)
        self.orders: dict[int, Order] = {}
        self.counted = {0: 0.0, 1: 0.0}

    def report(self, index: int, state: str = "running", generation: int = 1, *, step: int = 0, **more: Any) -> Order:
        order = self.orders.get(index)
        values = {
            "job": "j", "index": index, "incarnation": f"a{index}", "address": "10.0.0.1", "port": 4000, "slots": 2,
            "state": state, "generation": generation, "held": self.now, "counted": self.counted[index],
            "spent": order.spent if order else None,
            "progress": [RankProgress(activity="training", step=step)] if state != "idle" else [],
        }  # fmt: skip
        self.orders[index] = self.coordinator.take(Report.model_validate({**values, **more}), self.now)
        self.counted[index] = self.now
        return self.orders[index]

    def both(self, seconds: float, state: str = "running", generation: int = 1, **more: Any) -> None:
        """Time passes, then both report."""
        self.now += seconds
        for index in (0, 1):
            self.report(index, state, generation, **({} if index else {"facts": more.get("facts")}), step=more["step"])

    def started(self) -> "Workers":
        """Both joined 3 s after the launcher."""
        self.now = 3.0
        for index in (0, 1):
            self.report(index, "idle", 0)
        return self

    @property
    def spent(self) -> DeviceSeconds:
        return self.coordinator.device_time.seconds()


def test_every_second_that_a_device_is_held_counts_once() -> None:
    workers = Workers().started()  # both waited for 3 s
    workers.both(10, step=0)
    workers.both(5, step=7)
    workers.report(1, step=8)  # told again at once, it is no new second
    assert workers.spent == DeviceSeconds(pending=12, starting=40, productive=20)
    workers.coordinator.stop("asked")
    workers.both(1, "ended", step=9)
    assert workers.spent == DeviceSeconds(pending=12, starting=40, productive=24), "ranks that save are productive"


def test_one_that_waits_for_the_other_holds_its_devices() -> None:
    workers = Workers()
    workers.now = 60.0
    workers.report(0, "idle", 0)
    assert workers.spent == DeviceSeconds(pending=120)


def test_a_failure_takes_back_what_no_checkpoint_holds() -> None:
    workers = Workers().started()
    workers.both(10, step=10)
    workers.both(10, step=20)
    workers.both(0, step=20, facts=checkpoint(15))  # 20 steps in 80 device seconds, 5 of them after it
    assert workers.coordinator.device_time.spent.unsaved == pytest.approx(20)
    workers.both(1, step=22)
    workers.report(1, ends=[RankEnd(rank=2, exit_code=-9)], step=22)
    assert workers.spent == DeviceSeconds(pending=12, productive=60, lost=24)
    workers.both(2, "ended", step=22)
    assert workers.spent == DeviceSeconds(pending=20, productive=60, lost=24), "what waits for a start is pending"
    workers.both(4, "running", 2, step=0, facts=checkpoint(15))
    workers.both(4, "running", 2, step=16)
    assert workers.spent == DeviceSeconds(pending=20, productive=76, lost=24, starting=16)


@pytest.mark.parametrize(
    ("step", "since", "reached", "unsaved"),
    [(10, 0, 10, 0), (5, 0, 20, 75), (20, 10, 20, 0), (20, 20, 20, 100), (4, 10, 20, 100), (30, 10, 20, 0)],
)
def test_unsaved_time_goes_by_steps(step: int, since: int, reached: int, unsaved: float) -> None:
    time = DeviceTime()
    time.add("productive", 100.0)
    time.saved(since, reached=0)
    time.saved(step, reached=reached)
    assert time.spent.unsaved == pytest.approx(unsaved)
    assert time.spent.productive == 100.0


def test_a_launcher_that_is_started_anew_goes_on_with_account_and_facts() -> None:
    workers = Workers().started()
    facts = checkpoint(5).model_copy(update=DATA.told())
    workers.both(10, step=10)
    workers.both(0, step=10, facts=facts)
    before = workers.coordinator.device_time.spent
    assert before.unsaved == pytest.approx(20)
    workers.coordinator = Coordinator(RULES, now=0.0)
    workers.both(100, step=60, facts=facts)
    assert workers.spent == DeviceSeconds(pending=12, productive=40 + 400), "ranks went on while it was away"
    assert workers.coordinator.facts == facts
    workers.report(1, ends=[RankEnd(rank=2, exit_code=-9)], step=60)
    assert workers.spent.lost == 20 + 400, "the checkpoint is still the one of step 5"


def test_a_launcher_is_told_what_those_before_it_have_counted() -> None:
    workers = Workers()
    earlier = Workers().started()
    earlier.both(10, step=10)
    workers.coordinator = Coordinator(RULES, now=0.0, device_time=DeviceTime(earlier.coordinator.device_time.spent))
    workers.started()
    assert workers.spent == DeviceSeconds(pending=24, productive=40)


def test_facts_stay_until_news_of_them_come() -> None:
    workers = Workers().started()
    workers.both(1, step=1, facts=DATA)
    workers.both(1, step=2, facts=checkpoint(1))
    workers.both(1, step=3, facts=Facts())
    workers.both(1, step=4)
    told = launcher_status(workers.coordinator, "tiny")
    assert (told.data, told.checkpoint, told.evaluation) == (DATA.data, checkpoint(1).checkpoint, None)
    workers.both(1, step=5, facts=Facts(output=OutputStatus(path="/out")))
    assert launcher_status(workers.coordinator, "tiny").output == OutputStatus(path="/out")
