"""A worker pod: an agent and its ranks, with the devices, volumes and secrets that the job names."""

from typing import Any

from ytrain_operator.manifests import secret
from ytrain_operator.manifests.ownership import Manifest, worker_name
from ytrain_operator.manifests.pod import JOB_FOLDER, pod
from ytrain_operator.manifests.service import launcher_url
from ytrain_operator.manifests.template import merged
from ytrain_operator.manifests.volumes import WORK, Mount, claim_mounts, named_roots, work_folder, work_mount
from ytrain_operator.observed import Observed
from ytrain_operator.settings import Settings

_TORCH_CALLS_IT_CUDA = ("nvidia.com/", "amd.com/")


def worker_pod(observed: Observed, index: int, settings: Settings) -> Manifest:
    spec = observed.job.spec
    claims = claim_mounts(observed)
    args = ["worker", "--launcher", launcher_url(observed), "--index", str(index)]
    args += ["--token-file", f"{JOB_FOLDER}/{secret.TOKEN}", "--workdir", work_folder(observed)]
    args += ["--device", _device(spec.workers.device_resource), *named_roots(claims, "--claim")]
    container = {
        "args": args,
        "env": [{"name": "YTRAIN_CACHE", "value": f"{WORK}/cache"}],
        **({"envFrom": [{"secretRef": {"name": name}} for name in spec.secrets]} if spec.secrets else {}),
        "resources": _resources(observed, settings),
    }
    memory = {"medium": "Memory", "sizeLimit": settings.jobs.shared_memory}
    mounts = [Mount({"name": "shm", "emptyDir": memory}, "/dev/shm"), work_mount(observed), *claims]  # noqa: S108
    return pod(
        observed,
        settings,
        name=worker_name(observed.name, index),
        role="worker",
        index=index,
        container=container,
        mounts=mounts,
        grace_seconds=settings.lifecycle.grace_seconds,
    )


def _device(resource: str) -> str:
    """A job that asks for a GPU fails where torch finds none, rather than train on the CPU for weeks."""
    if resource == "none":
        return "cpu"
    return "cuda" if resource.startswith(_TORCH_CALLS_IT_CUDA) else "auto"


def _resources(observed: Observed, settings: Settings) -> dict[str, Any]:
    workers = observed.job.spec.workers
    given = merged(settings.jobs.worker_resources, workers.resources)
    if workers.device_resource == "none":
        return given
    devices = {workers.device_resource: workers.devices}
    return merged(given, {"requests": devices, "limits": devices})
