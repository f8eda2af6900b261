"""Suspension: a planned stop that leaves a checkpoint and frees every device.

Deleting worker pods sends SIGTERM to their agents, which tell the launcher; the ranks agree on a step, save together
and end. The launcher stays until no worker is left, because it is what they agree by.
"""

from ytrain_operator.observed import Observed
from ytrain_operator.planner.plan import Deletion


def deletions(observed: Observed) -> tuple[Deletion, ...]:
    leaving = observed.workers or ((observed.launcher,) if observed.launcher else ())
    return tuple(Deletion(pod.name, pod.uid) for pod in leaving if not pod.deleting)
