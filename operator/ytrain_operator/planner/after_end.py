"""What happens to the pods of a finished job, and after its time to live to the job itself; nothing starts again."""

from dataclasses import dataclass

from ytrain_operator.observed import Observed
from ytrain_operator.planner.plan import Deletion
from ytrain_operator.timestamps import from_text


@dataclass(frozen=True)
class Cleanup:
    """What goes now, and in how many seconds more of it."""

    delete: tuple[Deletion, ...] = ()
    delete_job: bool = False
    again_after: float | None = None


def cleanup(observed: Observed) -> Cleanup:
    """Pods that still run go at once, for they hold devices; those that ended stay as `policy.keepPods` says."""
    policy = observed.job.spec.policy
    succeeded = observed.status.phase == "Succeeded"
    keep = policy.keep_pods == "all" or (policy.keep_pods == "failed" and not succeeded)
    left = _time_left(observed)
    over = left is not None and left <= 0
    if over and policy.ttl_deletes == "job":
        return Cleanup(delete_job=True)
    gone = tuple(
        Deletion(pod.name, pod.uid) for pod in observed.own if not pod.deleting and (over or not keep or not pod.over)
    )
    return Cleanup(delete=gone, again_after=left if left is not None and left > 0 else None)


def _time_left(observed: Observed) -> float | None:
    ttl, ended = observed.job.spec.policy.ttl_after_finished, from_text(observed.status.completion_time)
    if ttl is None or ended is None:
        return None
    return ttl.seconds - (observed.now - ended).total_seconds()
