"""What a job that runs owns, and which of its pods can be made now."""

from ytrain_operator.manifests.launcher_pod import launcher_pod
from ytrain_operator.manifests.network_policy import network_policy
from ytrain_operator.manifests.ownership import Manifest, launcher_name, worker_name
from ytrain_operator.manifests.secret import secret
from ytrain_operator.manifests.service import service
from ytrain_operator.manifests.work_claim import work_claim
from ytrain_operator.manifests.worker_pod import worker_pod
from ytrain_operator.observed import Observed
from ytrain_operator.settings import Settings


def surroundings(observed: Observed, settings: Settings, key: bytes) -> tuple[Manifest, ...]:
    """Everything but the pods, in the order in which pods need it."""
    claim = work_claim(observed, settings)
    return (
        secret(observed, key),
        network_policy(observed, settings),
        service(observed),
        *((claim,) if claim else ()),
    )


def missing_pods(observed: Observed, settings: Settings) -> tuple[Manifest, ...]:
    """Pods whose names are free; one that is going, or belongs to a former job of this name, holds its name till then.

    A launcher waits for workers that are going: they would tell it to stop. Workers wait for a launcher that has
    spoken its last word: it would tell them to leave.
    """
    if observed.last_word is not None:
        return ()
    taken = {pod.name for pod in observed.pods}
    name, replicas = observed.name, observed.job.spec.workers.replicas
    pods = [worker_pod(observed, i, settings) for i in range(replicas) if worker_name(name, i) not in taken]
    if launcher_name(name) not in taken and not any(pod.deleting for pod in observed.workers):
        pods.insert(0, launcher_pod(observed, settings))
    return tuple(pods)
