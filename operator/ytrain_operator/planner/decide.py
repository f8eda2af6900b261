"""The plan for a job: asks each policy in turn. Pure; the same observation gives the same plan."""

from dataclasses import replace
from datetime import datetime

from ytrain_operator.observed import Observed
from ytrain_operator.planner import lost_node, restart, suspend
from ytrain_operator.planner.after_end import cleanup
from ytrain_operator.planner.children import missing_pods, surroundings
from ytrain_operator.planner.deadline import next_deadline
from ytrain_operator.planner.plan import Plan
from ytrain_operator.planner.verdict import verdict
from ytrain_operator.settings import Settings
from ytrain_operator.status.events import events
from ytrain_operator.status.summary import acknowledged, ended_status, status
from ytrain_operator.status.waiting import next_slow_start


def decide(observed: Observed, settings: Settings, key: bytes) -> Plan:
    """What to do now.

    Args:
        key: the operator's, from which job tokens are made.
    """
    if observed.deleting:
        return Plan()  # owner references clean up
    if observed.finished:
        done = cleanup(observed)
        return Plan(
            status=acknowledged(observed),
            delete=done.delete,
            delete_job=done.delete_job,
            again_after=done.again_after,
        )
    failures = restart.counted(observed)
    ended = verdict(observed, failures)
    if ended is not None:
        # Pods stay until the end is written down: they are what it was read from.
        written = ended_status(observed, ended.failure, failures)
        return Plan(status=written, events=events(observed, written))
    pods = _pods(observed, settings, key, restart.not_before(failures, settings))
    lost, lost_wait = lost_node.deletions(observed, settings)
    written = status(observed, failures, restart.first_failed(observed, failures))
    waits = [pods.again_after, lost_wait, observed.last_word_wait, next_deadline(observed), next_slow_start(observed)]
    return replace(
        pods,
        events=events(observed, written),
        status=written,
        delete=(*pods.delete, *lost),
        again_after=min((max(0.1, wait) for wait in waits if wait is not None), default=None),
    )


def _pods(observed: Observed, settings: Settings, key: bytes, not_before: datetime | None) -> Plan:
    """What is to be made and deleted of a job that goes on."""
    # Ranks learn of another number of workers, and of more epochs or steps, when they start.
    outdated = any(
        pod.replicas != observed.job.spec.workers.replicas or pod.length not in (None, observed.length)
        for pod in observed.own
    )
    if observed.job.spec.suspend or outdated:
        return Plan(delete=suspend.deletions(observed))
    around = () if observed.surrounded else surroundings(observed, settings, key)
    delete = restart.deletions(observed)
    wait = (not_before - observed.now).total_seconds() if not_before else 0.0
    if wait > 0:
        return Plan(surroundings=around, delete=delete, again_after=wait)
    return Plan(surroundings=around, pods=missing_pods(observed, settings), delete=delete)
