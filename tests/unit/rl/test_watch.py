"""What a run of rl says of its steps, and when it ends."""

from typing import Any

import numpy as np
import pytest

from ytrain.engine.world import World
from ytrain.rl.credit import Group
from ytrain.rl.rewards import Failure
from ytrain.rl.tree import ROOT, Leaf, Node, SampleTree
from ytrain.rl.watch import LARGE_GAP, UNIFORM_STEPS, Watch
from ytrain.training.plan import Step
from ytrain_api.errors import RewardError

pytestmark = pytest.mark.unit


class Told:
    """A watch, the steps that it saw, and what it said."""

    def __init__(self, total_steps: int = 1000, steps_per_epoch: int = 4) -> None:
        self.notes: list[str] = []
        self.steps_per_epoch = steps_per_epoch
        self.watch = Watch(world=World(), note=self.notes.append, total_steps=total_steps)
        self.steps = 0

    def see(self, outcomes: list[float | Failure], **figures: Any) -> list[str]:
        """What is said of the next step, whose answers to one prompt came to this."""
        self.steps += 1
        self.notes.clear()
        failed = sum(isinstance(outcome, Failure) for outcome in outcomes)
        rl = {
            "rewardMean": None if failed == len(outcomes) else 0.5,
            "failedRewards": failed,
            "leaves": len(outcomes),
            "mixedGroups": int(len(set(outcomes)) > 1),
            "logProbGap": 1e-6,
            "largestLogProbGap": 1e-5,
        }
        step = Step(number=self.steps, epoch=self.steps / self.steps_per_epoch, rows=(), labels=0, lengths=())
        self.watch.see(step, rl | figures, [group(outcomes)])
        return list(self.notes)


def group(outcomes: list[float | Failure]) -> Group:
    nothing = np.zeros(1, np.float32)
    node = Node(parent=ROOT, tokens=np.ones(1, np.int32), log_p=nothing, entropy=nothing)
    tree = SampleTree(
        prompt_ids=np.ones(1, np.int32),
        nodes=(node,) * len(outcomes),
        leaves={number: Leaf(mass=1.0, ended=True) for number in range(len(outcomes))},
    )
    return Group(tree, dict(enumerate(outcomes)))


def test_a_large_gap_is_an_alarm_once() -> None:
    told = Told()
    assert told.see([0.0, 1.0], logProbGap=LARGE_GAP) == []
    assert told.see([0.0, 1.0], logProbGap=None) == []
    (note,) = told.see([0.0, 1.0], logProbGap=0.25, largestLogProbGap=3.0)
    assert note.startswith("step 3: the log-probabilities of sampler and trainer differ by 0.250 nats")
    assert "largest 3.00" in note and "model.precision: float32" in note
    assert told.see([0.0, 1.0], logProbGap=0.25) == []


@pytest.mark.parametrize("gap", [float("nan"), float("inf")])
def test_a_gap_that_is_no_number_is_an_alarm(gap: float) -> None:
    (note,) = Told().see([0.0, 1.0], logProbGap=gap)
    assert "log-probabilities of sampler and trainer differ" in note


def test_an_epoch_without_a_mixed_group_is_told_with_what_helps() -> None:
    told = Told()
    assert [told.see([1.0, 1.0]) for _ in range(3)] == [[], [], []]
    (note,) = told.see([1.0, 1.0])
    assert note.startswith("steps 1 to 4: the answers to each prompt all got the same reward")
    assert "raise rl.rollout.chains or temperature" in note
    told.see([0.0, 1.0])
    assert [told.see([1.0, 1.0]) for _ in range(3)] == [[], [], []], "one was mixed"
    assert [told.see([1.0, 1.0]) for _ in range(4)][3][0].startswith("steps 9 to 12")


def test_a_run_that_is_shorter_than_an_epoch_is_told_too() -> None:
    told = Told(total_steps=2)
    assert told.see([1.0, 1.0]) == [] and told.see([1.0, 1.0])[0].startswith("steps 1 to 2")


def test_many_steps_without_a_mixed_group_are_told_before_a_long_epoch_is_over() -> None:
    told = Told(steps_per_epoch=500)
    told.see([0.0, 1.0])
    notes = [note for _ in range(2 * UNIFORM_STEPS) for note in told.see([1.0, 1.0])]
    (note,) = notes
    assert note.startswith(f"steps 2 to {UNIFORM_STEPS + 1}: the answers to each prompt all got the same reward")
    told.see([0.0, 1.0])
    assert len([note for _ in range(UNIFORM_STEPS) for note in told.see([1.0, 1.0])]) == 1


def test_failures_are_told_by_reason_the_commonest_first() -> None:
    raised, hung = Failure("it raised", "KeyError: 'a'"), Failure("it hung")
    rare = [Failure(f"reason {number}") for number in range(3)]
    (note,) = Told().see([raised, hung, raised, 1.0, *rare])
    assert note == (
        "step 1: 6 of 7 answers got no reward; 2 of them: it raised (KeyError: 'a'); 1 of them: it hung; "
        "1 of them: reason 0; and 2 more reasons"
    )
    assert Told().see([0.0, 1.0]) == []


def test_steps_in_a_row_without_a_reward_end_the_run() -> None:
    told, failed = Told(), [Failure("it raised")] * 2
    for outcomes in (failed, failed, [1.0, 0.0], failed, failed):
        told.see(outcomes)
    with pytest.raises(RewardError, match=r"no answer got a reward in 3 steps in a row; 2 of 2 .* it raised"):
        told.see(failed)
