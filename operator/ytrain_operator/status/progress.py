"""How far training is and what it has found and cost, from the launcher's last word, its latest answer, or what was
written before, in this order."""

from ytrain_api.base import Block
from ytrain_api.protocol import LauncherStatus
from ytrain_api.status import DeviceSeconds, Progress, Usage, WorkerCount
from ytrain_operator.observed import Observed


def launcher_view(observed: Observed) -> LauncherStatus | None:
    """The launcher's final figures, which win over any answer, or its latest answer."""
    word = observed.last_word
    return (word.status if word else None) or observed.launcher_status


def progress(observed: Observed) -> Progress | None:
    """Figures without news keep their time, so that a job in which nothing happens is not written again."""
    before, view = observed.status.progress, launcher_view(observed)
    told = view.progress if view else None
    if told is None or (before and (told.step or 0) < (before.step or 0) and not told.loss):
        return before  # ranks that start again tell of step 0 until they have loaded their checkpoint
    if before and _news(told) == _news(before):
        return before
    return told


def _news(progress: Progress) -> object:
    return progress.step, progress.loss, progress.total_steps, progress.summary


def facts(observed: Observed) -> dict[str, Block]:
    """What the launcher tells of data, evaluation, checkpoint and output; of the others, what was written stays."""
    view = launcher_view(observed)
    return view.told() if view else {}


def usage(observed: Observed) -> Usage | None:
    """The launcher's account of device time, which holds that of the launchers before it; it never falls."""
    before, view = observed.status.usage, launcher_view(observed)
    told = view.usage if view else None
    return told if told is not None and _total(told) > _total(before) else before


def _total(usage: Usage | None) -> int:
    spent = usage.device_seconds if usage else DeviceSeconds()
    return spent.productive + spent.starting + spent.lost + spent.pending


def workers(observed: Observed, desired: int) -> WorkerCount:
    """Pods that should be, and agents that are."""
    view, before = observed.launcher_status, observed.status.workers
    joined = view.workers.ready if view else before.ready if before else 0
    return WorkerCount(desired=desired, ready=min(observed.running_workers, joined))
