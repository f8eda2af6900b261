"""The operator's settings: one YAML file, rendered by the chart, with what a cluster decides for all of its jobs.

What a job decides stands in its own spec; a default here applies where the job says nothing.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from ytrain_api.errors import SpecError


class Block(BaseModel):
    """A part of the settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class JobDefaults(Block):
    """What jobs get that do not say it themselves."""

    image: str = "ytrain-trainer:latest"
    """The trainer's image; by digest in an air-gapped cluster."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    queue: str | None = Field(default=None, min_length=1)
    """Kueue LocalQueue."""
    storage_class: str | None = None
    """Class of work volumes that are made for `storage.size`; None is the cluster's own default."""
    launcher_resources: dict[str, Any] = Field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}
    )
    worker_resources: dict[str, Any] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)
    run_as_user: int | None = 1000
    """None leaves it to the image or to the cluster, as OpenShift wants."""
    fs_group: int | None = 1000
    """Group that owns mounted volumes, so that the pod's user can write to them."""
    shared_memory: str = "2Gi"
    """Largest /dev/shm of a worker, which NCCL and data loaders use; it counts as the container's memory."""


class Lifecycle(Block):
    """How long the operator waits, in seconds."""

    grace_seconds: int = Field(default=600, ge=1)
    """For a worker to save after SIGTERM; it leaves as soon as it has."""
    lost_node_seconds: int = Field(default=60, ge=0)
    """From a node's silence to the eviction of its pods."""
    force_delete_seconds: int = Field(default=30, ge=0)
    """From the eviction of a pod on a silent node to its removal without the node's word."""
    most_backoff_seconds: float = Field(default=300.0, ge=0)
    """Longest wait before a pod that failed again and again is made anew."""


class Settings(Block):
    """Everything that main.py reads."""

    namespace: str = "ytrain-system"
    """Where the operator runs: its Lease and its key are here."""
    namespaces: list[str] = Field(default_factory=list)
    """Namespaces whose jobs it serves; empty: all."""
    workers: int = Field(default=16, ge=1)
    """Jobs that are reconciled at the same time."""
    resync_seconds: float = Field(default=600.0, gt=0)
    """Everything is listed and looked at again this often, in case that a watch has missed something."""
    metrics_port: int = 8080
    """Port of /metrics and /healthz; 0 takes a free one."""
    leader_election: bool = True
    operator_pod_labels: dict[str, str] = Field(default_factory=lambda: {"app.kubernetes.io/name": "ytrain-operator"})
    """Labels of the operator's pods, which the launchers' NetworkPolicies admit."""
    jobs: JobDefaults = Field(default_factory=JobDefaults)
    lifecycle: Lifecycle = Field(default_factory=Lifecycle)


def load_settings(path: Path) -> Settings:
    """The settings in a YAML file.

    Raises:
        SpecError: it cannot be read, or holds something else.
    """
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        faults = [
            f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)
        ]
        raise SpecError("\n".join(faults)) from error
