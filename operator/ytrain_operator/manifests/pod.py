"""What launcher and worker pods share: Pod Security `restricted`, the token, scratch space, the queue.

The container's root is read-only, it runs as nobody special, has no capability and no token of the API server's.
"""

from collections.abc import Mapping
from typing import Any

from ytrain_operator.manifests.ownership import Manifest, metadata, surroundings_name
from ytrain_operator.manifests.template import merged
from ytrain_operator.manifests.volumes import Mount, volumes
from ytrain_operator.observed import (
    CONTAINER,
    IMAGE_ANNOTATION,
    JOB_LABEL,
    LENGTH_ANNOTATION,
    REPLICAS_ANNOTATION,
    ROLE_LABEL,
    Observed,
    Role,
)
from ytrain_operator.settings import Settings

JOB_FOLDER, SCRATCH = "/etc/ytrain/job", "/tmp"  # noqa: S108 - an emptyDir of the pod's own

_LOST = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def pod(
    observed: Observed,
    settings: Settings,
    *,
    name: str,
    role: Role,
    index: int,
    container: Mapping[str, Any],
    mounts: list[Mount],
    grace_seconds: int,
) -> Manifest:
    """The pod of a role, with the job's own template merged last.

    Args:
        container: what is this role's own: args, resources, ports, environment.
        grace_seconds: how long it may take to end after SIGTERM.
    """
    spec, image = observed.job.spec, _image(observed, settings)
    mounts = [
        Mount({"name": "tmp", "emptyDir": {}}, SCRATCH),
        Mount({"name": "job", "secret": {"secretName": surroundings_name(observed.name)}}, JOB_FOLDER, read_only=True),
        *mounts,
    ]
    base: dict[str, Any] = {
        "metadata": {
            **metadata(observed, name, role, index),
            "annotations": {
                REPLICAS_ANNOTATION: str(spec.workers.replicas),
                LENGTH_ANNOTATION: observed.length,
                IMAGE_ANNOTATION: image,
            },
        },
        "spec": {
            "restartPolicy": "Never",  # a launcher that failed for good must not start again; the planner decides
            "terminationGracePeriodSeconds": grace_seconds,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(settings),
            "tolerations": [
                *settings.jobs.tolerations,
                *(
                    {
                        "key": key,
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": settings.lifecycle.lost_node_seconds,
                    }
                    for key in _LOST
                ),
            ],
            **({"nodeSelector": dict(settings.jobs.node_selector)} if settings.jobs.node_selector else {}),
            **({"topologySpreadConstraints": [_apart(observed)]} if role == "worker" else {}),
            **(
                {"imagePullSecrets": [{"name": secret} for secret in settings.jobs.image_pull_secrets]}
                if settings.jobs.image_pull_secrets
                else {}
            ),
            "volumes": volumes(mounts),
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": settings.jobs.image_pull_policy,
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [mount.volume_mount for mount in mounts],
                    **container,
                }
            ],
        },
    }
    base["metadata"] = merged(base["metadata"], _queued(observed, settings))
    template = (spec.launcher if role == "launcher" else spec.workers).template
    given = merged(base, template.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True))
    # Names, labels and owner are how this pod is found again; a template adds to them. Nor is it of another kind.
    given["metadata"] = merged(given["metadata"], base["metadata"])
    return {**given, "apiVersion": "v1", "kind": "Pod"}


def _image(observed: Observed, settings: Settings) -> str:
    """The same for all pods that run together, also when the operator's default has changed meanwhile: ranks and
    launchers of two versions would not understand each other."""
    running = (pod.image for pod in observed.own if pod.running and pod.image is not None)
    return observed.job.spec.image or next(running, settings.jobs.image)


def _pod_security(settings: Settings) -> dict[str, Any]:
    user, group = settings.jobs.run_as_user, settings.jobs.fs_group
    return {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        **({"runAsUser": user, "runAsGroup": user} if user is not None else {}),
        # OnRootMismatch: a volume with many checkpoints is not walked through at every start.
        **({"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"} if group is not None else {}),
    }


def _apart(observed: Observed) -> dict[str, Any]:
    """A node for each worker, while there is room: ranks that share a node belong in one worker (workers.devices)."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {JOB_LABEL: observed.name, ROLE_LABEL: "worker"}},
    }


def _queued(observed: Observed, settings: Settings) -> dict[str, Any]:
    """Kueue's marks: launcher and workers are admitted together, or none of them.

    A job that goes on with another number of workers is another group: the size of one cannot change.
    """
    queue = observed.job.spec.queue or settings.jobs.queue
    if queue is None:
        return {}
    replicas = observed.job.spec.workers.replicas
    return {
        "labels": {
            "kueue.x-k8s.io/queue-name": queue,
            # 48: with uid and number it is a label's 63 characters at most.
            "kueue.x-k8s.io/pod-group-name": f"{observed.name[:48]}-{observed.uid[:8]}-{replicas}",
        },
        "annotations": {"kueue.x-k8s.io/pod-group-total-count": str(replicas + 1)},
    }
