"""Pods that ended before the job was done: which are replaced, how often, how soon.

The launcher starts ranks again by itself, with a budget of its own; this is about pods, which only we can replace.
"""

from datetime import datetime, timedelta

from ytrain_api.errors import Preempted
from ytrain_api.status import PodFailures
from ytrain_operator.observed import Observed, Pod
from ytrain_operator.planner.plan import Deletion
from ytrain_operator.settings import Settings
from ytrain_operator.timestamps import from_text, to_text

PERMANENT = (2, 3, 4)
"""Exit codes of failures that come back: a wrong job, wrong data, training that cannot go on."""


def failed_pods(observed: Observed) -> tuple[Pod, ...]:
    """Pods that ended by a fault of their own, and not because somebody stopped them or took their node."""
    return tuple(
        pod
        for pod in observed.own
        if pod.ended is not None
        and pod.ended.exit_code not in (0, Preempted.exit_code)
        and not pod.deleting
        and pod.node_lost is None
    )


def counted(observed: Observed) -> PodFailures | None:
    """The failures in a row, those that are seen for the first time included.

    Times tell what was counted before: a plan that was made twice, or half carried out, counts once.
    """
    before = observed.status.pod_failures or PodFailures()
    latest = from_text(before.latest_at)
    if observed.concluding or observed.last_word is not None:
        return observed.status.pod_failures
    times = [_when(pod) for pod in failed_pods(observed)]
    new = [time for time in times if latest is None or time > latest]
    if not new:
        return observed.status.pod_failures
    gained = observed.step > before.step
    return PodFailures(
        count=1 if gained else before.count + 1,
        step=max(observed.step, before.step),
        latest_at=to_text(max(new)),
    )


def first_failed(observed: Observed, failures: PodFailures | None) -> Pod | None:
    """The pod whose failure is counted now; None if no failure is new."""
    return min(failed_pods(observed), key=_when) if failures != observed.status.pod_failures else None


def deletions(observed: Observed) -> tuple[Deletion, ...]:
    """Ended pods make room for their replacements, which bear the same names.

    After a launcher's last word (the ranks were stopped from outside, by a drained node or a deleted pod) everything
    goes, and starts again from the checkpoint: another launcher would be told to stop by those that still are.
    A worker that ended well stays: should the launcher be lost now, it is what tells that the job is done.
    """
    if observed.concluding:
        return ()
    stopped = observed.last_word is not None
    return tuple(
        Deletion(pod.name, pod.uid)
        for pod in observed.own
        if not pod.deleting and (stopped or (pod.ended is not None and pod.ended.exit_code != 0))
    )


def not_before(failures: PodFailures | None, settings: Settings) -> datetime | None:
    """When pods may be made again: the first failure waits for nothing, most do not come back."""
    latest = from_text(failures.latest_at) if failures else None
    if failures is None or latest is None or failures.count <= 1:
        return None
    return latest + timedelta(seconds=min(settings.lifecycle.most_backoff_seconds, 2.0 ** min(failures.count - 2, 30)))


def _when(pod: Pod) -> datetime:
    assert pod.ended is not None
    return pod.ended.at or pod.created
