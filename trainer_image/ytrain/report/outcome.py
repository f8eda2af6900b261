"""Judges a run by its evaluation: what was gained, what was kept, and the words for both.

The page and the terminal summary take every number and every verdict from here, so they cannot disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ytrain.report.reward import RewardChange
from ytrain.report.run_files import Answer, Evaluation, EvaluationPoint, TaskScore, TextLoss

KEPT_PERCENT = 1.0
"""A text whose loss rises by no more than this (%) counts as kept."""

SLIGHT_PERCENT = 5.0
"""A rise above `KEPT_PERCENT` and up to this (%) is slight, more is forgetting: +5 % of 3 nats is +16 % perplexity."""


class Change(StrEnum):
    """A verdict on one number before and after training."""

    BETTER = "better"
    SAME = "no clear change"
    KEPT = "kept"
    SLIGHTLY_WORSE = "slightly worse"
    WORSE = "worse"
    NOT_A_NUMBER = "not a number"


@dataclass(frozen=True)
class TaskGain:
    """A task's accuracy before and after. `low` and `high` bound the change in points (95 %)."""

    name: str
    metric: str
    before: TaskScore
    after: TaskScore
    points: float
    low: float
    high: float
    change: Change


@dataclass(frozen=True)
class LossChange:
    """A text's loss in nats per token before and after; `percent` is relative to before, NaN if one is no number."""

    name: str
    tokens: int
    before: float
    after: float
    percent: float
    change: Change

    @property
    def moved(self) -> str:
        """`percent` as people read it; nothing where a loss is not a number."""
        return "" if self.change is Change.NOT_A_NUMBER else f"{self.percent:+.1f} %"


@dataclass(frozen=True)
class ExampleChange:
    """One sample of a task, answered before and after; None where that evaluation kept no answer to it."""

    task: str
    prompt: str
    expected: str
    before: Answer | None
    after: Answer | None


@dataclass(frozen=True)
class Outcome:
    """Gain and retention between the start and `step`; `final` is False when they are an intermediate evaluation's."""

    step: int | None
    final: bool
    tasks: tuple[TaskGain, ...]
    validation: LossChange | None
    retention: tuple[LossChange, ...]
    kl_to_start: float | None
    kl_tokens: int
    examples: tuple[ExampleChange, ...]
    gained: str
    kept: str
    alarm: str
    """Which evaluation gave no number and what to do; empty if all of them did."""


def judge(evaluation: Evaluation | None, reward: RewardChange | None = None) -> Outcome:
    """Compare the evaluation after training with the one before; while there is no `after`, the newest in between.

    The `reward` of a run that has one is a gain too, though on the prompts that it trains on.
    """
    before = evaluation.before if evaluation else None
    after = _newest(evaluation) if evaluation else None
    alarm = _alarm(evaluation_points(evaluation))
    if before is None or after is None:
        waiting = "Not measured yet: the evaluation after training has not run." if before else "Not measured."
        gained = f"{_reward_words(reward)} {waiting}" if reward else waiting
        return Outcome(None, False, (), None, (), None, 0, (), gained=gained, kept=waiting, alarm=alarm)
    tasks = tuple(task_gain(first, last) for first in before.tasks for last in after.tasks if first.name == last.name)
    validation = loss_change(before.validation, after.validation) if before.validation and after.validation else None
    retention = tuple(
        retention_change(first, last)
        for first in before.retention
        for last in after.retention
        if first.name == last.name
    )
    kl = after.kl_to_start
    return Outcome(
        step=after.step,
        final=evaluation is not None and evaluation.after is not None,
        tasks=tasks,
        validation=validation,
        retention=retention,
        kl_to_start=kl.value if kl else None,
        kl_tokens=kl.tokens if kl else 0,
        examples=tuple(_examples(before, after)),
        gained=_gained_words(tasks, validation, reward),
        kept=_kept_words(retention, kl.value if kl else None),
        alarm=alarm,
    )


def evaluation_points(evaluation: Evaluation | None) -> list[EvaluationPoint]:
    """Every evaluation of the run, one per step, in order."""
    if evaluation is None:
        return []
    points = [evaluation.before, *evaluation.history, evaluation.after]
    return [point for _, point in sorted({point.step: point for point in points if point}.items())]


def task_gain(before: TaskScore, after: TaskScore) -> TaskGain:
    """The change of an accuracy in points; it is clear when its 95 % interval leaves out zero.

    Newcombe's interval for the difference of two proportions (Statistics in Medicine 17, 1998, method 10). The samples
    are the same before and after, so the interval is wider than a paired one would be: a clear change is clear.
    """
    low_before, high_before = wilson_interval(before.correct, before.samples)
    low_after, high_after = wilson_interval(after.correct, after.samples)
    difference = after.accuracy - before.accuracy
    low = difference - math.hypot(after.accuracy - low_after, high_before - before.accuracy)
    high = difference + math.hypot(high_after - after.accuracy, before.accuracy - low_before)
    change = Change.BETTER if low > 0 else Change.WORSE if high < 0 else Change.SAME
    return TaskGain(after.name, after.metric, before, after, 100 * difference, 100 * low, 100 * high, change)


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; (0, 1) for no samples."""
    if samples == 0:
        return 0.0, 1.0
    z = 1.96
    share = correct / samples
    centre = share + z * z / (2 * samples)
    spread = z * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    scale = 1 + z * z / samples
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def loss_change(before: TextLoss, after: TextLoss) -> LossChange:
    """The relative change of a text's loss and its verdict by `KEPT_PERCENT` and `SLIGHT_PERCENT`."""
    if not math.isfinite(before.loss) or not math.isfinite(after.loss):
        return LossChange(after.name, after.tokens, before.loss, after.loss, math.nan, Change.NOT_A_NUMBER)
    percent = 100 * (after.loss - before.loss) / before.loss if before.loss else math.inf
    if percent > SLIGHT_PERCENT:
        change = Change.WORSE
    elif percent > KEPT_PERCENT:
        change = Change.SLIGHTLY_WORSE
    else:
        change = Change.SAME if percent >= -KEPT_PERCENT else Change.BETTER
    return LossChange(after.name, after.tokens, before.loss, after.loss, percent, change)


def retention_change(before: TextLoss, after: TextLoss) -> LossChange:
    """`loss_change` of a text that was not trained on, where no change is what was hoped for."""
    change = loss_change(before, after)
    return replace(change, change=Change.KEPT) if change.change is Change.SAME else change


def _newest(evaluation: Evaluation) -> EvaluationPoint | None:
    start = evaluation.before.step if evaluation.before else 0
    later = [point for point in evaluation.history if point.step > start]
    return evaluation.after or (later[-1] if later else None)


def _alarm(points: Sequence[EvaluationPoint]) -> str:
    """The first evaluation that gave no number, and what to do about it."""
    broken = [(point, names) for point in points if (names := _not_finite(point))]
    if not broken:
        return ""
    first, names = broken[0]
    when = f"after step {first.step}" if first.step else "before training"
    said = f"The evaluation {when} was not a number (NaN or infinite): {_listed(names)}."
    if not first.step:
        return f"{said} No training has touched these weights yet: try model.precision: float32, or another model."
    if broken[-1][0] is not points[-1]:
        return f"{said} Later ones were numbers again."
    return (
        f"{said} What the weights compute has overflowed; do not use this output. Run the job again in another work "
        "folder with a lower optimization.learningRate or with model.precision: float32."
    )


def _not_finite(point: EvaluationPoint) -> list[str]:
    """The figures of an evaluation that are no numbers."""
    figures = [("validation loss", point.validation.loss)] if point.validation else []
    figures += [(f"loss of {text.name}", text.loss) for text in point.retention]
    figures += [("KL to the start", point.kl_to_start.value)] if point.kl_to_start else []
    return [name for name, value in figures if not math.isfinite(value)]


def _examples(before: EvaluationPoint, after: EvaluationPoint) -> list[ExampleChange]:
    """Samples answered before and after side by side, those whose verdict changed first."""
    first = {(task.name, answer.prompt): answer for task in before.tasks for answer in task.examples}
    last = {(task.name, answer.prompt): answer for task in after.tasks for answer in task.examples}
    rows = []
    for task, prompt in dict.fromkeys([*last, *first]):
        old, new = first.get((task, prompt)), last.get((task, prompt))
        shown = new or old
        assert shown is not None
        rows.append(ExampleChange(task, prompt, shown.expected, old, new))
    return sorted(
        rows, key=lambda row: (row.before is None or row.after is None) or row.before.correct == row.after.correct
    )


def _gained_words(tasks: tuple[TaskGain, ...], validation: LossChange | None, reward: RewardChange | None) -> str:
    better = [task for task in tasks if task.change is Change.BETTER]
    worse = [task for task in tasks if task.change is Change.WORSE]
    sentences = []
    if better:
        sentences.append(f"Better at {_listed([_task_words(task) for task in better])}.")
    if worse:
        sentences.append(f"Worse at {_listed([_task_words(task) for task in worse])}.")
    if tasks and not sentences:
        sentences.append("No task changed by more than its margin of error.")
    if validation and validation.change is Change.NOT_A_NUMBER:
        sentences.append("Validation loss cannot be compared: it was not a number.")
    elif validation:
        direction = "fell" if validation.after < validation.before else "rose"
        sentences.append(
            f"Validation loss {direction} from {validation.before:.3f} to {validation.after:.3f} nats per token."
        )
    if reward:
        sentences.append(_reward_words(reward))
    if not tasks and not validation:
        measured = "Other prompts were not measured" if reward else "Not measured"
        sentences.append(f"{measured}: the job has neither evaluation tasks nor validation data.")
    return " ".join(sentences)


def _reward_words(reward: RewardChange) -> str:
    direction = "rose" if reward.last > reward.first else "did not rise: it went"
    return (
        f"The reward of the training prompts {direction} from {reward.first:.3f} to {reward.last:.3f} "
        f"(mean of the {reward.ends})."
    )


def _kept_words(retention: tuple[LossChange, ...], kl: float | None) -> str:
    def texts(*changes: Change) -> list[str]:
        return [f"{text.name} ({text.percent:+.1f}\N{NO-BREAK SPACE}%)" for text in retention if text.change in changes]

    sentences = []
    if broken := [text.name for text in retention if text.change is Change.NOT_A_NUMBER]:
        sentences.append(f"Cannot be compared, since the loss was not a number: {_listed(broken)}.")
    if forgotten := texts(Change.WORSE):
        sentences.append(f"Forgetting: the loss rose on {_listed(forgotten)}.")
    if slightly := texts(Change.SLIGHTLY_WORSE):
        sentences.append(f"Slightly worse: {_listed(slightly)}.")
    if kept := texts(Change.KEPT, Change.BETTER):
        sentences.append(f"Kept: {_listed(kept)}." if sentences else f"Nothing forgotten: {_listed(kept)}.")
    if not retention:
        sentences.append("Not measured: the job names no retention texts.")
    if kl is not None and math.isfinite(kl):
        sentences.append(f"On training prompts the model moved {kl:.3f} nats per token away from the start (KL).")
    return " ".join(sentences)


def _task_words(task: TaskGain) -> str:
    return (
        f"{task.name} ({100 * task.before.accuracy:.0f} → {100 * task.after.accuracy:.0f}\N{NO-BREAK SPACE}% correct)"
    )


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
