"""The launcher pod: small, without a device, coordinates the workers."""

from ytrain_api.protocol import PORT
from ytrain_operator.manifests import secret
from ytrain_operator.manifests.ownership import Manifest, launcher_name
from ytrain_operator.manifests.pod import JOB_FOLDER, pod
from ytrain_operator.manifests.template import merged
from ytrain_operator.manifests.volumes import config_map_mounts, named_roots, work_folder, work_mount
from ytrain_operator.observed import Observed
from ytrain_operator.settings import Settings

GRACE_SECONDS = 10
"""SIGTERM ends the launcher alone and at once; the ranks go on."""


def launcher_pod(observed: Observed, settings: Settings) -> Manifest:
    """Data of ConfigMaps reach the workers through it, so only it mounts them.

    It mounts the work volume if that is one for several nodes (ReadWriteMany, as several workers need it): then a
    launcher that comes after the end finds the result. One for a single node stays with the worker.
    """
    spec = observed.job.spec
    data = config_map_mounts(observed)
    work = [work_mount(observed)] if spec.storage is not None and spec.workers.replicas > 1 else []
    args = ["launcher", f"{JOB_FOLDER}/{secret.JOB}", "--token-file", f"{JOB_FOLDER}/{secret.TOKEN}"]
    if work:
        args += ["--workdir", work_folder(observed)]
    if observed.status.usage is not None:
        # Its account goes on where that of the launchers before it ended.
        args += ["--spent", observed.status.usage.device_seconds.model_dump_json()]
    container = {
        "args": [*args, *named_roots(data, "--config-map")],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 5},
        "resources": merged(settings.jobs.launcher_resources, spec.launcher.resources),
    }
    return pod(
        observed,
        settings,
        name=launcher_name(observed.name),
        role="launcher",
        index=0,
        container=container,
        mounts=[*work, *data],
        grace_seconds=GRACE_SECONDS,
    )
