"""What came of a job, in one sentence for `kubectl describe`: what was gained, what was kept, where the result lies."""

from collections.abc import Iterable

from ytrain_api.status import Change, NamedChange, Status

MOST_NAMED = 4
"""Tasks, and retention texts, that are named; the status has all of them."""


def outcome(status: Status) -> str:
    """Such as: done: sums 0 % -> 69 %; loss of chats +3.6 %; output in pvc://models/support-bot."""
    evaluation = status.evaluation
    parts = [_listed(_accuracy(task) for task in evaluation.tasks)] if evaluation else []
    if evaluation and (loss := _loss(evaluation.validation)):
        parts.append(f"validation loss {loss}")
    if evaluation and (kept := _listed(_relative(text) for text in evaluation.retention)):
        parts.append(f"loss of {kept}")
    if status.output and status.output.path:
        parts.append(f"output in {status.output.path}")
    return f"done: {'; '.join(part for part in parts if part)}" if any(parts) else "done: the model is written"


def _accuracy(task: NamedChange) -> str:
    if task.before is None or task.after is None:
        return ""
    return f"{task.name} {100 * task.before:.0f} % -> {100 * task.after:.0f} %"


def _loss(change: Change | None) -> str:
    if change is None or change.before is None or change.after is None:
        return ""
    return f"{change.before:.3g} -> {change.after:.3g}"


def _relative(text: NamedChange) -> str:
    if not text.before or text.after is None:
        return ""
    return f"{text.name} {100 * (text.after / text.before - 1):+.1f} %"


def _listed(words: Iterable[str]) -> str:
    known = [word for word in words if word]
    more = len(known) - MOST_NAMED
    return ", ".join([*known[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])
