"""Pods that Kueue holds on to.

It lets a pod of a group go when another one takes its place beside it, or when the whole group is over. Ours are
replaced under their own names, and a job that is suspended or deleted has none to replace them; so once nothing but
Kueue's finalizer keeps a pod, it is taken off. Pods of a job that ended are marked as not to be replaced: with the last
of them Kueue counts the group as finished and its quota as free, also if they stay for their logs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ytrain_operator.observed import KUEUE_FINALIZER, Pod

_LAST = "/metadata/annotations/kueue.x-k8s.io~1retriable-in-group"


@dataclass(frozen=True, slots=True)
class Release:
    """A pod that Kueue need not hold any longer."""

    name: str
    patch: tuple[dict[str, Any], ...]
    """A JSON patch, which fails on another pod of this name."""


def releases(pods: Iterable[Pod], *, ended: bool) -> tuple[Release, ...]:
    """What to tell Kueue of a job's pods; nothing of those that it does not hold.

    Args:
        ended: whether the job has ended for good.
    """
    told = []
    for pod in pods:
        if KUEUE_FINALIZER not in pod.finalizers:
            continue
        same = {"op": "test", "path": "/metadata/uid", "value": pod.uid}
        if pod.removed:
            path = f"/metadata/finalizers/{pod.finalizers.index(KUEUE_FINALIZER)}"
            held = {"op": "test", "path": path, "value": KUEUE_FINALIZER}
            told.append(Release(pod.name, (same, held, {"op": "remove", "path": path})))
        elif ended and pod.over:
            told.append(Release(pod.name, (same, {"op": "add", "path": _LAST, "value": "false"})))
    return tuple(told)
