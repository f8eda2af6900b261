"""Gains, retention and their verdicts."""

import math

import pytest

from ytrain.report.outcome import Change, evaluation_points, judge, loss_change, retention_change, task_gain
from ytrain.report.run_files import Evaluation, TaskScore, TextLoss

pytestmark = pytest.mark.unit


def score(correct: int, samples: int = 64) -> TaskScore:
    return TaskScore(name="sums", accuracy=correct / samples, correct=correct, samples=samples)


def point(step: int, correct: int, loss: float) -> dict:
    return {
        "step": step,
        "tasks": [{"name": "sums", "accuracy": correct / 64, "correct": correct, "samples": 64}],
        "retention": [{"name": "prose", "loss": loss, "tokens": 10}],
        "klToStart": {"value": 0.25, "tokens": 7},
    }


@pytest.mark.parametrize(
    ("before", "after", "samples", "change"),
    [
        (0, 40, 64, Change.BETTER),
        (40, 0, 64, Change.WORSE),
        (20, 23, 64, Change.SAME),
        (20, 20, 64, Change.SAME),
        (1, 3, 4, Change.SAME),
        (250, 750, 1000, Change.BETTER),
    ],
)
def test_task_change_is_clear_only_beyond_its_margin(before: int, after: int, samples: int, change: Change) -> None:
    gain = task_gain(score(before, samples), score(after, samples))
    assert gain.change is change
    assert gain.low <= gain.points <= gain.high


def test_interval_is_newcombes() -> None:
    # Newcombe 1998, table II, case a): 56/70 against 48/80 is 0.2000 with the interval 0.0524 to 0.3339
    gain = task_gain(score(48, 80), score(56, 70))
    assert (gain.low, gain.points, gain.high) == pytest.approx((5.24, 20.0, 33.39), abs=0.01)


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (1.9, Change.BETTER),
        (1.99, Change.KEPT),
        (2.0, Change.KEPT),
        (2.019, Change.KEPT),
        (2.03, Change.SLIGHTLY_WORSE),
        (2.2, Change.WORSE),
        (math.nan, Change.NOT_A_NUMBER),
        (math.inf, Change.NOT_A_NUMBER),
    ],
)
def test_retention_verdicts(after: float, change: Change) -> None:
    result = retention_change(TextLoss(name="prose", loss=2.0, tokens=9), TextLoss(name="prose", loss=after, tokens=9))
    assert result.change is change


def test_percent_is_relative_to_before() -> None:
    change = loss_change(TextLoss(loss=2.0, tokens=9), TextLoss(loss=1.0, tokens=9))
    assert change.percent == pytest.approx(-50)


def test_words_name_what_was_learned_and_what_was_forgotten() -> None:
    outcome = judge(Evaluation.model_validate({"before": point(0, 0, 2.0), "after": point(9, 40, 2.4)}))
    assert "sums" in outcome.gained and outcome.gained.startswith("Better")
    assert "prose" in outcome.kept and outcome.kept.startswith("Forgetting")
    assert "0.250" in outcome.kept
    assert outcome.final and outcome.step == 9


def test_without_an_after_the_newest_history_speaks() -> None:
    outcome = judge(
        Evaluation.model_validate({"before": point(0, 0, 2.0), "history": [point(3, 5, 2.0), point(6, 30, 2.0)]})
    )
    assert outcome.step == 6 and not outcome.final
    assert outcome.tasks[0].after.correct == 30


@pytest.mark.parametrize("evaluation", [None, {}, {"before": point(0, 0, 2.0)}, {"after": point(9, 1, 2.0)}])
def test_nothing_to_compare_is_said(evaluation: dict | None) -> None:
    outcome = judge(Evaluation.model_validate(evaluation) if evaluation is not None else None)
    assert outcome.step is None
    assert outcome.gained.startswith("Not measured") and outcome.kept.startswith("Not measured")


def test_a_job_without_tasks_and_texts_is_told_what_to_add() -> None:
    outcome = judge(Evaluation.model_validate({"before": {"step": 0}, "after": {"step": 4}}))
    assert "evaluation tasks" in outcome.gained
    assert "retention texts" in outcome.kept


@pytest.mark.parametrize(
    ("losses", "when", "advice"),
    [
        ((math.nan, 2.0, 2.0, 2.0), "before training", "No training has touched these weights yet"),
        ((2.0, 2.0, math.nan, math.nan), "after step 20", "lower optimization.learningRate"),
        ((2.0, 2.0, 2.0, math.inf), "after step 30", "do not use this output"),
        ((2.0, math.nan, 2.0, 2.0), "after step 10", "Later ones were numbers again"),
    ],
)
def test_an_evaluation_that_is_not_a_number_is_told_with_its_step(losses, when: str, advice: str) -> None:
    points = [
        {
            "step": 10 * index,
            "validation": {"loss": loss, "tokens": 5},
            "retention": [{"name": "prose", "loss": 1.0, "tokens": 9}, {"name": "code", "loss": loss, "tokens": 9}],
            "klToStart": {"value": loss if index else 0.0, "tokens": 7},
        }
        for index, loss in enumerate(losses)
    ]
    outcome = judge(Evaluation.model_validate({"before": points[0], "history": points[1:3], "after": points[3]}))
    broken = "validation loss and loss of code" if "before" in when else "validation loss, loss of code and KL"
    assert f"The evaluation {when} was not a number (NaN or infinite): {broken}" in outcome.alarm
    assert advice in outcome.alarm
    words = f"{outcome.gained} {outcome.kept}"
    assert "nan" not in words and "inf" not in words
    compared = math.isfinite(losses[0]) and math.isfinite(losses[3])
    assert ("Validation loss cannot be compared" in outcome.gained) is not compared
    assert ("not a number: code" in outcome.kept) is not compared
    assert "prose (+0.0\N{NO-BREAK SPACE}%)" in outcome.kept


def test_numbers_raise_no_alarm() -> None:
    assert judge(Evaluation.model_validate({"before": point(0, 0, 2.0), "after": point(9, 40, 2.4)})).alarm == ""


def test_a_broken_start_is_told_before_there_is_an_end() -> None:
    assert "before training" in judge(Evaluation.model_validate({"before": point(0, 0, math.nan)})).alarm


def test_points_are_one_per_step_in_order() -> None:
    evaluation = Evaluation.model_validate(
        {"before": {"step": 0}, "history": [{"step": 8}, {"step": 4}], "after": {"step": 8}}
    )
    assert [point.step for point in evaluation_points(evaluation)] == [0, 4, 8]


def test_examples_that_changed_come_first() -> None:
    def answered(step: int, *correct: bool) -> dict:
        examples = [
            {"prompt": str(index), "expected": "x", "answer": "x" if right else "y", "correct": right}
            for index, right in enumerate(correct)
        ]
        task = {"name": "t", "accuracy": sum(correct) / 3, "correct": sum(correct), "samples": 3, "examples": examples}
        return {"step": step, "tasks": [task]}

    outcome = judge(
        Evaluation.model_validate({"before": answered(0, True, False, False), "after": answered(5, True, False, True)})
    )
    assert [row.prompt for row in outcome.examples] == ["2", "0", "1"]
