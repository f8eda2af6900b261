"""What is there: a job, its pods and what its launcher says, as values that policies read.

Reads API objects; knows nothing of how they came here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from ytrain_api import YTrainJob
from ytrain_api.protocol import LastWord, LauncherStatus
from ytrain_api.status import Status
from ytrain_operator.timestamps import from_text

Role = Literal["launcher", "worker"]

JOB_LABEL, ROLE_LABEL, INDEX_LABEL = "ytrain.io/job", "ytrain.io/role", "ytrain.io/index"
REPLICAS_ANNOTATION = "ytrain.io/replicas"
"""`workers.replicas` when the pod was made."""
IMAGE_ANNOTATION = "ytrain.io/image"
"""The trainer's image when the pod was made, before the job's template was merged."""
LENGTH_ANNOTATION = "ytrain.io/length"
"""How long the job was to train when the pod was made."""
KUEUE_FINALIZER = "kueue.x-k8s.io/managed"
CONTAINER = "trainer"
"""Name of the container that launchers and workers run in."""
OF_A_LAUNCHER = (0, 2, 3, 4)
"""Exit codes with which workers leave when their launcher says that the job is done, or has failed for good."""
LAST_WORD_SECONDS = 60.0
"""How long after such a worker a launcher that does not answer may take to end: it waits for all workers to leave."""

_ROLES: Mapping[str | None, Role] = {"launcher": "launcher", "worker": "worker"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended."""

    exit_code: int
    reason: str = ""
    """Kubernetes' word, such as OOMKilled."""
    message: str = ""
    """Its termination message: what it left there, or the end of its log."""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a pod does not run yet, in the words of the scheduler or of the kubelet."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a job."""

    name: str
    uid: str
    owner: str
    """Uid of the job that it was made for."""
    role: Role
    index: int
    """Of a worker; 0 for the launcher."""
    replicas: int
    """Workers of the job when the pod was made."""
    image: str | None
    """The trainer's when the pod was made; None: an operator made it that did not say."""
    length: str | None
    """How long the job was to train when the pod was made; None: an operator made it that did not say."""
    phase: str
    created: datetime
    node: str | None = None
    address: str | None = None
    ready: bool = False
    deleting: bool = False
    removed: bool = False
    """Whether it would be gone but for its finalizers."""
    finalizers: tuple[str, ...] = ()
    ended: Ended | None = None
    obstacle: Obstacle | None = None
    placed: datetime | None = None
    """When it was given a node."""
    node_lost: datetime | None = None
    """Since when it is evicted from a node that is silent."""

    @property
    def over(self) -> bool:
        """Whether nothing runs in it any more, nor will."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        """Whether its container runs."""
        return self.phase == "Running" and self.ended is None


@dataclass(frozen=True)
class Observed:
    """A job and everything around it, at one moment."""

    job: YTrainJob
    namespace: str
    uid: str
    generation: int
    status: Status
    now: datetime
    pods: tuple[Pod, ...] = ()
    launcher_status: LauncherStatus | None = None
    """None: not asked, or no answer."""
    deleting: bool = False
    surrounded: bool = False
    """Whether the children that are no pods are known to be as this generation of the job wants them."""

    @property
    def name(self) -> str:
        return self.job.metadata.name

    @property
    def length(self) -> str:
        """How long the job is to train; it can be raised while pods run."""
        optimization = self.job.spec.optimization
        return f"epochs={optimization.epochs} maxSteps={optimization.max_steps}"

    @property
    def own(self) -> tuple[Pod, ...]:
        """Pods that were made for this job, not for a former one of its name."""
        return tuple(pod for pod in self.pods if pod.owner == self.uid)

    @property
    def launcher(self) -> Pod | None:
        return next((pod for pod in self.own if pod.role == "launcher"), None)

    @property
    def workers(self) -> tuple[Pod, ...]:
        """Worker pods, by index; after a resume with fewer there can be some beyond `workers.replicas`."""
        return tuple(sorted((pod for pod in self.own if pod.role == "worker"), key=lambda pod: pod.index))

    @property
    def running_workers(self) -> int:
        """Worker pods whose container runs."""
        return sum(pod.running for pod in self.workers)

    @property
    def least_workers(self) -> int:
        """Without so many nothing trains."""
        workers = self.job.spec.workers
        return workers.min_replicas or workers.replicas

    @property
    def finished(self) -> bool:
        """Whether the job's end is written down; from then on nothing starts again."""
        return any(
            condition.type in ("Complete", "Failed") and condition.status == "True"
            for condition in self.status.conditions
        )

    @property
    def concluding(self) -> bool:
        """Whether the launcher knows how the job ended and waits for its agents to hear of it; its last word is near.

        Workers that end now leave, they do not fail. A launcher that does not answer may be just about to end: then
        the codes of its workers tell.
        """
        if self.launcher is None or not self.launcher.running:
            return False
        if self.launcher_status is not None:
            return self.launcher_status.exit_code is not None
        return self.last_word_wait is not None

    @property
    def last_word_wait(self) -> float | None:
        """Seconds for which a launcher that does not answer is still believed to be about to end; None: it is not."""
        if self.launcher is None or not self.launcher.running or self.launcher_status is not None:
            return None
        left = [pod.ended for pod in self.workers if pod.ended is not None and pod.ended.exit_code in OF_A_LAUNCHER]
        ends = [ended.at for ended in left if ended.at is not None]
        wait = LAST_WORD_SECONDS - (self.now - max(ends)).total_seconds() if ends else 0.0
        return wait if wait > 0 else None

    @property
    def last_word(self) -> LastWord | None:
        """What the launcher left when it decided how the job ended."""
        ended = self.launcher.ended if self.launcher else None
        if ended is None:
            return None
        try:
            return LastWord.model_validate_json(ended.message, extra="ignore")  # of a newer trainer, perhaps
        except ValidationError:
            # A launcher without work (its run folder says done) and one with a wrong command line leave no last word.
            return LastWord(exit_code=0, message="done") if ended.exit_code == 0 else None

    @property
    def step(self) -> int:
        """The most steps that are known to be done."""
        written = self.status.progress.step if self.status.progress else None
        told = self.launcher_status.progress if self.launcher_status else None
        return max(written or 0, (told.step if told else None) or 0)


def pod_of(raw: Mapping[str, Any]) -> Pod | None:
    """The pod of an API object; None if it is none of a job's."""
    metadata, status = raw["metadata"], raw.get("status", {})
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    owner = next((ref["uid"] for ref in metadata.get("ownerReferences", ()) if ref.get("controller")), None)
    role = _ROLES.get(labels.get(ROLE_LABEL))
    index = labels.get(INDEX_LABEL, "0")
    created = from_text(metadata.get("creationTimestamp"))
    if owner is None or role is None or JOB_LABEL not in labels or not index.isdigit() or created is None:
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    container: Mapping[str, Any] = next(
        (state for state in status.get("containerStatuses", ()) if state["name"] == CONTAINER), {}
    )
    ready = conditions.get("Ready", {}).get("status") == "True"
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        owner=owner,
        role=role,
        index=int(index),
        replicas=int(annotations.get(REPLICAS_ANNOTATION, 0)),
        image=annotations.get(IMAGE_ANNOTATION),
        length=annotations.get(LENGTH_ANNOTATION),
        phase=status.get("phase", "Pending"),
        created=created,
        node=raw.get("spec", {}).get("nodeName"),
        address=status.get("podIP"),
        ready=ready,
        deleting="deletionTimestamp" in metadata,
        removed="deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds") == 0,
        finalizers=tuple(metadata.get("finalizers", ())),
        ended=_ended(status, container),
        obstacle=_obstacle(status, conditions),
        placed=_placed(conditions),
        node_lost=_node_lost(conditions, ready),
    )


def _ended(status: Mapping[str, Any], container: Mapping[str, Any]) -> Ended | None:
    state = container.get("state", {}).get("terminated")
    if state:
        return Ended(
            exit_code=state["exitCode"],
            reason=state.get("reason", ""),
            message=state.get("message", ""),
            at=from_text(state.get("finishedAt")),
        )
    if status.get("phase") == "Failed":  # evicted or rejected by a kubelet: no container has a word on it
        for init in status.get("initContainerStatuses", ()):
            done = init.get("state", {}).get("terminated", {})
            if done.get("exitCode"):
                how = f"init container {init['name']} ended with exit code {done['exitCode']}"
                said = "\n".join(filter(None, (done.get("message"), how)))
                return Ended(exit_code=128, reason=done.get("reason", ""), message=said)
        return Ended(exit_code=128, reason=status.get("reason", "Failed"), message=status.get("message", ""))
    return None


def _obstacle(status: Mapping[str, Any], conditions: Mapping[str, Any]) -> Obstacle | None:
    if status.get("phase", "Pending") != "Pending":
        return None
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return Obstacle(waiting["reason"], waiting.get("message", ""))
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return Obstacle(scheduled.get("reason", "Unschedulable"), scheduled.get("message", ""))
    return None


def _placed(conditions: Mapping[str, Any]) -> datetime | None:
    scheduled = conditions.get("PodScheduled", {})
    return from_text(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None


def _node_lost(conditions: Mapping[str, Any], ready: bool) -> datetime | None:
    """A taint evicts pods from a living node too; from a silent one they are, besides, not ready any more."""
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True" and target.get("reason") == "DeletionByTaintManager" and not ready:
        return from_text(target.get("lastTransitionTime"))
    return None


def observed_job(raw: Mapping[str, Any], now: datetime, pods: tuple[Pod, ...] = ()) -> Observed:
    """What an API object says of a job.

    Raises:
        pydantic.ValidationError: its spec is none that this operator knows, such as one of a newer version.
    """
    metadata = raw["metadata"]
    job = YTrainJob.model_validate(
        {
            "apiVersion": raw["apiVersion"],
            "kind": raw["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "spec": raw["spec"],
        },
        by_alias=True,
        by_name=False,
    )
    return Observed(
        job=job,
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        status=Status.model_validate(raw.get("status", {}), by_alias=True, by_name=False),
        now=now,
        pods=pods,
        deleting="deletionTimestamp" in metadata,
    )
