"""`spec.storage`, `launcher`, `workers` and `policy`: where a job runs on the cluster and how long it is kept alive."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ytrain_api.base import Block, FreeForm, Rule, Wording
from ytrain_api.pod import PodTemplate
from ytrain_api.units import AutoDuration, Duration, Quantity

AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]
KeepPods = Literal["none", "failed", "all"]
TtlDeletes = Literal["pods", "job"]
ResourceName = Annotated[
    str,
    StringConstraints(
        max_length=253, pattern=r"^(none|[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)$"
    ),
    Wording("an extended resource such as nvidia.com/gpu, or none"),
]
ObjectName = Annotated[
    str,
    StringConstraints(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
    Wording("the name of a Kubernetes object: lower-case letters, digits, hyphens and dots"),
]


class Storage(Block):
    """The work volume for checkpoints: an existing claim, or a new one of some size."""

    claim: ObjectName | None = Field(default=None, description="Name of an existing PersistentVolumeClaim.")
    size: Quantity | None = Field(default=None, description="Size of a new claim, such as 100Gi; it outlives the job.")
    class_name: ObjectName | None = Field(
        default=None, description="StorageClass of the new claim. Absent: the cluster's default class."
    )
    access_mode: AccessMode | None = Field(
        default=None,
        description="Access mode of the new claim. Absent: ReadWriteMany with several workers, else ReadWriteOnce.",
    )

    rules = (
        Rule(
            "has(self.claim) != has(self.size)",
            "give claim (an existing volume) or size (a new one), exactly one of them",
        ),
        *(
            Rule(f"!has(self.{name}) || has(self.size)", f"{name} describes a new claim; give size as well", f".{name}")
            for name in ("className", "accessMode")
        ),
    )


class Launcher(Block):
    """The pod that coordinates the workers; it needs no device."""

    resources: FreeForm = Field(default_factory=dict, description="Requests and limits of the container, as in a Pod.")
    template: PodTemplate = Field(
        default_factory=PodTemplate,
        description="Partial PodTemplateSpec, merged last: node selector, tolerations, annotations.",
    )


class Workers(Block):
    """The pods that train."""

    replicas: int = Field(default=1, ge=1, le=4096, description="Worker pods.")
    min_replicas: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Fewest pods to train with when some cannot be had: the others are waited for for a minute, and "
        "taken in at a checkpoint when they come. Absent: replicas.",
    )
    devices: int = Field(default=1, ge=1, le=64, description="Ranks in each pod, each with one device.")
    device_resource: ResourceName = Field(
        default="nvidia.com/gpu", description="Extended resource that is one device; none runs ranks on the CPU."
    )
    resources: FreeForm = Field(
        default_factory=dict,
        description="Requests and limits of the container, as in a Pod; devices are added to them.",
    )
    template: PodTemplate = Field(
        default_factory=PodTemplate,
        description="Partial PodTemplateSpec, merged last: node selector, tolerations, annotations.",
    )

    rules = (
        Rule(
            "!has(self.minReplicas) || self.minReplicas <= self.replicas",
            "minReplicas cannot be above replicas",
            ".minReplicas",
        ),
    )


class Policy(Block):
    """How faults, deadlines and finished pods are handled."""

    restarts: int = Field(
        default=5, ge=0, le=1000, description="Restarts in a row without a new step after which the job fails."
    )
    active_deadline: Duration | None = Field(
        default=None,
        description="Longest time from the job's creation to its end, such as 48h, without the time that it is "
        "suspended. Absent: no limit.",
    )
    pending_deadline: Duration | None = Field(
        default=None, description="Longest wait for all pods to be placed, such as 30m. Absent: no limit."
    )
    hang_timeout: AutoDuration = Field(
        default=AutoDuration("auto"),
        description="Time without a step that counts as a hang; auto is 20 times the median step, at least 60s.",
    )
    keep_pods: KeepPods = Field(default="failed", description="Pods that stay after the end, for their logs.")
    ttl_after_finished: Duration | None = Field(
        default=None, description="Time after the end when ttlDeletes is carried out, such as 24h. Absent: never."
    )
    ttl_deletes: TtlDeletes = Field(
        default="pods",
        description="What goes after ttlAfterFinished: the pods, or the job too. A GitOps tool makes a deleted "
        "job again.",
    )

    rules = (
        Rule(
            "self.ttlDeletes != 'job' || has(self.ttlAfterFinished)",
            "ttlDeletes: job has no effect without ttlAfterFinished; add it, such as 24h",
            ".ttlDeletes",
        ),
    )
