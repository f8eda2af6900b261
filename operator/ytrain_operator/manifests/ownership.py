"""Names, labels and owner references of what a job owns.

Names are made from the job's alone (at most 50 characters, by the contract), so whoever makes a child a second time
makes the same one.
"""

from collections.abc import Mapping
from typing import Any

from ytrain_api import API_VERSION, KIND
from ytrain_operator.observed import INDEX_LABEL, JOB_LABEL, ROLE_LABEL, Observed, Role

Manifest = Mapping[str, Any]
"""An object as it should be, for server-side apply."""

MANAGED_BY = {"app.kubernetes.io/managed-by": "ytrain-operator"}


def launcher_name(job: str) -> str:
    return f"{job}-launcher"


def worker_name(job: str, index: int) -> str:
    return f"{job}-worker-{index}"


def surroundings_name(job: str) -> str:
    """Of the Secret, the Service and the NetworkPolicy.

    One that nobody else would give: applying a child takes over whatever bears its name, and the garbage collector
    takes that with the job. As `<job>-token`, a job `hf` would have had the Secret `hf-token`.
    """
    return f"{job}-ytrain"


def work_claim_name(job: str) -> str:
    return f"{job}-work"


def run_folder(observed: Observed) -> str:
    """Folder on the work volume: another job of the same name never meets this one's files."""
    return f"{observed.name}-{observed.uid[:8]}"


def labels(observed: Observed, role: Role | None = None, index: int | None = None) -> dict[str, str]:
    """Labels of a child; JOB_LABEL selects one job's among those of a namespace."""
    given = {"app.kubernetes.io/name": "ytrain", **MANAGED_BY, JOB_LABEL: observed.name}
    if role is not None:
        given[ROLE_LABEL] = role
    if index is not None:
        given[INDEX_LABEL] = str(index)
    return given


def metadata(observed: Observed, name: str, role: Role | None = None, index: int | None = None) -> dict[str, Any]:
    """Metadata of a child that goes when its job goes."""
    return {
        "name": name,
        "namespace": observed.namespace,
        "labels": labels(observed, role, index),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": observed.name,
                "uid": observed.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
