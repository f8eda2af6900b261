"""Pods on a node that went silent: the node will not say that they ended, so they are removed without its word.

The taint manager evicts them (the pods' tolerations say when) but they stay, terminating, for as long as their node is
away. What still runs there cannot train on: its ranks wait for peers that have a new generation, and the work folder is
locked by the replacement.
"""

from ytrain_operator.observed import Observed
from ytrain_operator.planner.plan import Deletion
from ytrain_operator.settings import Settings


def deletions(observed: Observed, settings: Settings) -> tuple[tuple[Deletion, ...], float | None]:
    """Pods to remove, and in how many seconds to look again."""
    due, waits = [], []
    for pod in observed.pods:
        if pod.deleting and pod.node_lost is not None and not pod.over:
            left = settings.lifecycle.force_delete_seconds - (observed.now - pod.node_lost).total_seconds()
            if left <= 0:
                due.append(Deletion(pod.name, pod.uid, at_once=True))
            else:
                waits.append(left)
    return tuple(due), min(waits, default=None)
