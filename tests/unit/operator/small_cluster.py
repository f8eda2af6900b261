"""A job and its pods as API objects, to which plans are carried out; what kubelets and launchers do, tests say."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ytrain_api.protocol import LauncherStatus
from ytrain_api.status import Condition
from ytrain_operator.manifests.template import merged
from ytrain_operator.observed import Observed, Pod, observed_job, pod_of
from ytrain_operator.planner.decide import decide
from ytrain_operator.planner.plan import Plan
from ytrain_operator.settings import Settings
from ytrain_operator.timestamps import to_text

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = b"k" * 32
SPEC: dict[str, Any] = {
    "model": {"source": "pvc://models/base"},
    "data": {"train": [{"source": "pvc://data/train.jsonl"}], "maxTokens": 512},
    "sft": {},
    "output": {"target": "pvc://models/out"},
    "storage": {"claim": "work"},
    "workers": {"replicas": 2, "deviceResource": "none"},
}
PODS = {"bot-launcher", "bot-worker-0", "bot-worker-1"}
DONE = json.dumps({"exitCode": 0, "message": "done"})
STOPPED = json.dumps({"exitCode": 143, "message": "stopped: worker 0 was asked to stop"})


def job_object(
    spec: Mapping[str, Any] | None = None, *, name: str = "bot", uid: str = "11111111-2222"
) -> dict[str, Any]:
    """A YTrainJob as the API server gives it; `spec` is merged into one with two workers."""
    return {
        "apiVersion": "ytrain.io/v1alpha1",
        "kind": "YTrainJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid,
            "generation": 1,
            "creationTimestamp": to_text(START),
        },
        "spec": merged(SPEC, spec or {}),
    }


def job_file(secret: Mapping[str, Any]) -> str:
    """The job as a launcher reads it from the Secret."""
    return base64.b64decode(secret["data"]["job.yaml"]).decode()


class SmallCluster:
    """One job, what it owns, and a clock."""

    def __init__(self, spec: Mapping[str, Any] | None = None, settings: Settings | None = None) -> None:
        self.job = job_object(spec)
        self.settings = settings or Settings()
        self.now = START
        self.pods: dict[str, dict[str, Any]] = {}
        self.others: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.launcher_status: LauncherStatus | None = None
        self.events: list[str] = []
        self.made: list[str] = []
        """Names of all pods that were ever made, in order."""
        self.job_deleted = False

    def observed(self) -> Observed:
        pods: list[Pod] = [pod for pod in map(pod_of, self.pods.values()) if pod is not None]
        seen = observed_job(self.job, self.now, tuple(pods))
        alive = seen.launcher is not None and seen.launcher.running
        return Observed(**{**seen.__dict__, "launcher_status": self.launcher_status if alive else None})

    def plan(self) -> Plan:
        return decide(self.observed(), self.settings, KEY)

    def reconcile(self, *, until: int = 99) -> Plan:
        """Make a plan and carry out its first `until` writes: the operator may be killed after any of them."""
        plan = self.plan()
        writes = [
            *((self._apply, manifest) for manifest in (*plan.surroundings, *plan.pods)),
            *([(self._write, plan.status)] if plan.status is not None else []),
            *((self._delete, deletion) for deletion in plan.delete),
        ]
        for write, value in writes[:until]:
            write(value)
        self.events += [f"{event.type} {event.reason}" for event in plan.events]
        self.job_deleted |= plan.delete_job
        return plan

    def settle(self) -> None:
        """Reconcile until nothing changes."""
        for _ in range(20):
            before = json.dumps([self.job, self.pods], sort_keys=True)
            self.reconcile()
            if json.dumps([self.job, self.pods], sort_keys=True) == before:
                return
        raise AssertionError("the plans never come to rest")

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def start_pods(self, *names: str) -> None:
        """Kubelets run these pods, or all that wait."""
        for name, pod in self.pods.items():
            if name in names or (not names and pod["status"]["phase"] == "Pending"):
                conditions = [{"type": "Ready", "status": "True"}]
                pod["status"] = {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}
                pod["spec"]["nodeName"] = "node-a"

    def end_pod(self, name: str, exit_code: int, *, reason: str = "Error", message: str = "") -> None:
        """A pod's container ends; one that was asked to go is gone with it."""
        ended = {"exitCode": exit_code, "reason": reason, "message": message, "finishedAt": to_text(self.now)}
        pod = self.pods[name]
        pod["status"]["phase"] = "Failed" if exit_code else "Succeeded"
        pod["status"]["containerStatuses"] = [{"name": "trainer", "state": {"terminated": ended}}]
        if "deletionTimestamp" in pod["metadata"]:
            del self.pods[name]

    def delete_pod(self, name: str) -> None:
        """Somebody deletes a pod, which takes note of it."""
        self.pods[name]["metadata"]["deletionTimestamp"] = to_text(self.now)

    def tell(self, state: str = "Running", *, step: int = 0, **more: Any) -> None:
        """What the launcher answers."""
        progress = {"step": step, "totalSteps": 100, "loss": 2.0} if step else None
        replicas = self.job["spec"]["workers"]["replicas"]
        told = {"job": "bot", "state": state, "generation": 1, "restarts": 0, "progress": progress, **more}
        told["workers"] = {"desired": replicas, "ready": replicas}
        self.launcher_status = LauncherStatus.model_validate({k: v for k, v in told.items() if v is not None})

    def trained(self, *, step: int = 10) -> "SmallCluster":
        """The job in the middle of training."""
        self.settle()
        self.start_pods()
        self.tell(step=step)
        self.settle()
        return self

    def suspend(self, value: bool = True, **workers: Any) -> None:
        self.job["spec"] = merged(self.job["spec"], {"suspend": value, "workers": workers})
        self.job["metadata"]["generation"] += 1

    @property
    def phase(self) -> str:
        return str(self.job["status"]["phase"])

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.job["status"]
        return status

    def condition(self, kind: str) -> Condition:
        return next(each for each in self.observed().status.conditions if each.type == kind)

    def _apply(self, manifest: Mapping[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] != "Pod":
            self.others[manifest["kind"], name] = manifest
        elif name not in self.pods:
            self.made.append(name)
            pod = json.loads(json.dumps(manifest))
            pod["metadata"] |= {"uid": f"{name}-{len(self.made)}", "creationTimestamp": to_text(self.now)}
            self.pods[name] = {**pod, "status": {"phase": "Pending"}}

    def _write(self, status: Any) -> None:
        self.job["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def _delete(self, deletion: Any) -> None:
        pod = self.pods.get(deletion.name)
        if pod is None or pod["metadata"]["uid"] != deletion.uid:
            return
        if deletion.at_once or pod["status"]["phase"] != "Running":
            del self.pods[deletion.name]
        else:
            pod["metadata"]["deletionTimestamp"] = to_text(self.now)


def finish(cluster: SmallCluster, word: str = DONE, code: int = 0) -> None:
    """The launcher and its workers end, as they do within a moment."""
    cluster.end_pod("bot-launcher", code, message=word)
    for name in sorted(PODS - {"bot-launcher"}):
        if name in cluster.pods:
            cluster.end_pod(name, code)
