"""Why pods do not run yet: the scheduler's and the kubelet's own words, with what to do about the usual ones."""

from dataclasses import dataclass

from ytrain_operator.observed import KUEUE_FINALIZER, Observed, Obstacle, Pod

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


SLOW_SECONDS = 120.0
"""From a pod's placement to the suspicion that more than its image keeps it: only its events say so."""
_SLOW = (
    "`kubectl -n {namespace} describe pod {pod}` says why: a ConfigMap, Secret or volume that the job names is "
    "missing, or the image is large"
)


@dataclass(frozen=True)
class Wait:
    """What a job waits for."""

    reason: str
    message: str
    hint: str = ""
    pod: str | None = None

    @property
    def text(self) -> str:
        """In one line, for a condition."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


def waiting(observed: Observed) -> Wait | None:
    """None once every pod runs, or has run. What needs a person is told before what passes by itself."""
    pods = sorted(observed.own, key=lambda pod: (pod.role, pod.index))  # the same one is told at every look
    waits = [_wait(observed, pod) for pod in pods if pod.phase == "Pending"]
    if not waits:
        return None
    wait = min(waits, key=lambda wait: wait.reason in ("PodsStarting", "Queued"))
    alike = sum(other.reason == wait.reason for other in waits)
    if alike == 1:
        return wait
    return Wait(wait.reason, f"{wait.message} ({alike} pods wait alike)", wait.hint, wait.pod)


def next_slow_start(observed: Observed) -> float | None:
    """Seconds until a pod that was placed takes suspiciously long to begin."""
    lefts = (_slow_after(observed, pod) for pod in observed.own)
    return min((left for left in lefts if left is not None and left > 0), default=None)


def _slow_after(observed: Observed, pod: Pod) -> float | None:
    if pod.phase != "Pending" or pod.obstacle is not None or pod.placed is None:
        return None
    return SLOW_SECONDS - (observed.now - pod.placed).total_seconds()


def _wait(observed: Observed, pod: Pod) -> Wait:
    obstacle = pod.obstacle
    if obstacle is None:
        left = _slow_after(observed, pod)
        if left is not None and left <= 0:
            said = f"{pod.name} was placed on {pod.node} and its containers do not begin"
            return Wait("SlowStart", said, _SLOW.format(pod=pod.name, namespace=observed.namespace), pod.name)
        return Wait("PodsStarting", f"{pod.name} is being started", pod=pod.name)
    reason, hint = _named(observed, pod, obstacle)
    words = " ".join(obstacle.message.split()).rstrip(".")
    return Wait(reason, f"{pod.name}: {words or obstacle.reason}", hint, pod.name)


def _named(observed: Observed, pod: Pod, obstacle: Obstacle) -> tuple[str, str]:
    """A reason for programs, and a hint."""
    text = obstacle.message.lower()
    if obstacle.reason in _IMAGE:
        image = observed.job.spec.image
        where = f"spec.image ({image})" if image else "the operator's default image (jobs.image in its settings)"
        return "ImagePull", f"Check {where}, and jobs.imagePullSecrets if the registry asks who pulls"
    if obstacle.reason in _CONFIG:
        return "ContainerConfig", "A Secret or ConfigMap that the job names is probably missing in its namespace"
    if obstacle.reason == "SchedulingGated":
        if KUEUE_FINALIZER not in pod.finalizers:
            return "Queued", ""
        look = f"`kubectl -n {observed.namespace} describe workloads`"
        return "Queued", f"Kueue admits launcher and workers together when their queue has room: {look} tells more"
    if "persistentvolumeclaim" in text or "unbound immediate" in text:
        return "Volume", "Create the claim in the job's namespace, or name another"
    workers = observed.job.spec.workers
    if pod.role == "worker" and workers.device_resource != "none" and workers.device_resource in obstacle.message:
        asked = f"{workers.devices} x {workers.device_resource} for each of {workers.replicas} workers"
        return "Unschedulable", f"The job asks for {asked}; no node has that many free"
    if "untolerated taint" in text:
        return "Unschedulable", "Add the toleration to workers.template, or to jobs.tolerations in the settings"
    return "Unschedulable", ""
