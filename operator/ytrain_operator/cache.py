"""What the watches have told: jobs as compact JSON (most are finished and never looked at again) and pods as values.

Answers to our own writes are put in as well, so that a plan never rests on what it has itself outdated.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from ytrain_api.status import DeviceSeconds
from ytrain_operator.observed import JOB_LABEL, Pod, pod_of

_METADATA = ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_MOST_GONE = 20_000
"""Uids of deleted objects that are remembered: news of them can still arrive."""


class Key(NamedTuple):
    """A job's name."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job, packed."""

    uid: str
    version: int
    phase: str
    figures: tuple[int, float | None, int | None]
    """Step, loss, tokens a second."""
    device_seconds: tuple[int, ...]
    """In the order of the contract's kinds; none before the first are told."""
    packed: bytes

    def unpacked(self) -> dict[str, Any]:
        """The API object, without what nobody here reads."""
        raw: dict[str, Any] = json.loads(self.packed)
        return raw


class Cache:
    """Jobs and pods, newest versions only."""

    def __init__(self) -> None:
        self.jobs: dict[Key, JobRecord] = {}
        self._pods: dict[Key, dict[str, tuple[int, Pod]]] = {}
        self._gone: dict[str, None] = {}

    def pods(self, key: Key) -> tuple[Pod, ...]:
        """Pods that bear a job's name."""
        return tuple(pod for _, pod in self._pods.get(key, {}).values())

    def put_job(self, raw: Mapping[str, Any]) -> Key | None:
        """Take note of a job; returns its key, or None if that is no news."""
        metadata = raw["metadata"]
        key, version = Key(metadata["namespace"], metadata["name"]), int(metadata["resourceVersion"])
        held = self.jobs.get(key)
        if metadata["uid"] in self._gone or (held and held.version >= version):
            return None
        status = raw.get("status", {})
        progress = status.get("progress", {})
        spent = status.get("usage", {}).get("deviceSeconds", {})
        kept = {
            "apiVersion": raw["apiVersion"],
            "kind": raw["kind"],
            "metadata": {name: metadata[name] for name in _METADATA if name in metadata},
            "spec": raw["spec"],
            "status": status,
        }
        self.jobs[key] = JobRecord(
            uid=metadata["uid"],
            version=version,
            phase=status.get("phase", "Pending"),
            figures=(progress.get("step") or 0, progress.get("loss"), progress.get("tokensPerSecond")),
            device_seconds=tuple(spent.get(kind, 0) for kind in DeviceSeconds.model_fields) if spent else (),
            packed=json.dumps(kept, separators=(",", ":")).encode(),
        )
        return key

    def drop_job(self, raw: Mapping[str, Any]) -> Key:
        """A job was deleted."""
        metadata = raw["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        self._bury(metadata["uid"])
        held = self.jobs.get(key)
        if held and held.uid == metadata["uid"]:
            del self.jobs[key]
        return key

    def put_pod(self, raw: Mapping[str, Any]) -> Key | None:
        """Take note of a pod; returns its job's key, or None if it is no job's or no news."""
        pod, metadata = pod_of(raw), raw["metadata"]
        if pod is None:
            return None
        key, version = Key(metadata["namespace"], metadata["labels"][JOB_LABEL]), int(metadata["resourceVersion"])
        held = self._pods.get(key, {}).get(pod.name)
        if pod.uid in self._gone or (held and held[0] >= version):
            return None
        self._pods.setdefault(key, {})[pod.name] = (version, pod)
        return key

    def drop_pod(self, raw: Mapping[str, Any]) -> Key | None:
        """A pod is gone."""
        metadata = raw["metadata"]
        self._bury(metadata["uid"])
        job = metadata.get("labels", {}).get(JOB_LABEL)
        if job is None:
            return None
        key = Key(metadata["namespace"], job)
        pods = self._pods.get(key, {})
        held = pods.get(metadata["name"])
        if held and held[1].uid == metadata["uid"]:
            del pods[metadata["name"]]
        if not pods:
            self._pods.pop(key, None)
        return key

    def keep_jobs(self, listed: Set[str], version: int, namespace: str | None) -> set[Key]:
        """Drop jobs that a list did not show and that are not newer than it; returns their keys."""
        stale = {
            key
            for key, record in self.jobs.items()
            if record.uid not in listed and record.version <= version and namespace in (None, key.namespace)
        }
        for key in stale:
            del self.jobs[key]
        return stale

    def keep_pods(self, listed: Set[str], version: int, namespace: str | None) -> set[Key]:
        """Drop pods that a list did not show and that are not newer than it; returns their jobs' keys."""
        stale = {
            (key, name)
            for key, held in self._pods.items()
            if namespace in (None, key.namespace)
            for name, (seen, pod) in held.items()
            if pod.uid not in listed and seen <= version
        }
        for key, name in stale:
            del self._pods[key][name]
        return {key for key, _ in stale}

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]
