"""A coordinator with two agents and a clock, which tests move."""

from typing import Any

from ytrain.launcher.coordinator import Coordinator, Rules
from ytrain_api.protocol import Order, RankEnd, RankProgress, Report


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
