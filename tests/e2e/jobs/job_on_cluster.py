"""A YTrainJob on real nodes: applying it, waiting for it, looking at everything that it owns."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.cluster import product
from tests.cluster.failures import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import claim

from ytrain_operator.manifests.template import merged

LIMIT = 900.0
"""Seconds after which what was waited for counts as never coming."""

SHARED_CLASS = os.environ.get("YTRAIN_E2E_SHARED_CLASS", "shared")
"""The storage class of volumes that all nodes may write."""

FAST_LIFECYCLE = ("lifecycle.lostNodeSeconds=5", "lifecycle.forceDeleteSeconds=5")
"""Values of the chart: nobody here waits a minute for a node."""

SPEC: dict[str, Any] = {
    "model": {"source": "pvc://models/tiny", "precision": "float32"},
    "data": {"train": [{"source": "configmap://chats/train.jsonl"}]},
    "optimization": {"learningRate": 1e-3, "epochs": 40, "batchSequences": 4, "schedule": "constant"},
    "checkpoint": {"everySteps": 20},
    "workers": {"replicas": 2, "deviceResource": "none"},
}
"""200 steps of two workers on 20 chats: over within seconds of its start."""

LONG = {"optimization": {"epochs": 400}, "checkpoint": {"everySteps": 200}}
LONG_STEPS = 2000
"""For those who do something to a job while it trains."""

ROLES = ("launcher", "worker-0", "worker-1")


@contextmanager
def shell(kubectl: Kubectl, image: str, *claims: str) -> Iterator[str]:
    """The name of a pod that runs commands, with the claims at /claims."""
    name = "shell"
    kubectl.apply(product.shell_pod(name, image, *claims))
    try:
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={LIMIT:.0f}s", seconds=LIMIT)
        yield name
    finally:
        kubectl("delete", "pod", name, seconds=LIMIT)


@dataclass(frozen=True)
class Job:
    """One job in a namespace where the claim `models` and the ConfigMap `chats` are."""

    kubectl: Kubectl
    name: str

    def apply(self, spec: dict[str, Any] | None = None) -> None:
        """Create or change it; `spec` is merged into SPEC, and is an sft job's unless it says otherwise."""
        own: dict[str, Any] = {
            "output": {"target": f"pvc://models/{self.name}"},
            "storage": {"claim": f"{self.name}-run"},
            **({} if spec and {"cpt", "rl", "corpus"} & spec.keys() else {"sft": {"loss": {"kind": "nlirg"}}}),
        }
        self.kubectl.apply(
            claim(f"{self.name}-run", SHARED_CLASS, "ReadWriteMany"),
            {
                "apiVersion": "ytrain.io/v1alpha1",
                "kind": "YTrainJob",
                "metadata": {"name": self.name},
                "spec": merged(merged(SPEC, own), spec or {}),
            },
        )

    def patch(self, spec: dict[str, Any]) -> None:
        """As `kubectl patch --type merge` does."""
        self.kubectl("patch", "ytj", self.name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def delete(self) -> None:
        """Delete it, and wait until nothing is left but volumes."""
        self.kubectl("delete", "ytj", self.name, "--ignore-not-found", "--wait=false")
        wait_for(f"{self.name} and all it owned to be gone", lambda: not self.owned(), seconds=LIMIT)

    def owned(self) -> list[str]:
        """Kinds and names of all objects that bear the job's label, and of the job itself."""
        kinds = "ytj,pods,secrets,services,networkpolicies"
        found = self.kubectl.get(kinds)["items"]
        return [
            f"{each['kind']}/{each['metadata']['name']}"
            for each in found
            if (each["kind"], each["metadata"]["name"]) == ("YTrainJob", self.name)
            or each["metadata"].get("labels", {}).get("ytrain.io/job") == self.name
        ]

    @property
    def status(self) -> dict[str, Any]:
        """As the API server has it."""
        status: dict[str, Any] = self.kubectl.get("ytj", self.name).get("status", {})
        return status

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.status.get("progress", {}).get("step", 0))

    def condition(self, kind: str) -> dict[str, str]:
        """The condition of a type; empty while there is none."""
        return next((each for each in self.status.get("conditions", ()) if each["type"] == kind), {})

    def pod(self, role: str) -> dict[str, Any]:
        """`launcher` or `worker-0` as it is now; empty while there is none."""
        found = self.kubectl.get("pods", f"--selector=ytrain.io/job={self.name}")["items"]
        return next((pod for pod in found if pod["metadata"]["name"] == f"{self.name}-{role}"), {})

    def uid(self, role: str) -> str:
        return str(self.pod(role).get("metadata", {}).get("uid", ""))

    def wait_for(self, what: str, ready: Callable[[], object], *, may_fail: bool = False) -> None:
        """Return once `ready` answers truly; one that never does, or a job that fails unasked, is told with all that
        may tell why."""

        def failed() -> str:
            return "the job has failed" if not may_fail and self.phase == "Failed" else ""

        try:
            wait_for(f"{self.name}: {what}", ready, seconds=LIMIT, trouble=failed)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.told()}") from None

    def wait_for_phase(self, *wanted: str) -> None:
        self.wait_for(" or ".join(wanted), lambda: self.phase in wanted, may_fail="Failed" in wanted)

    def wait_for_step(self, step: int) -> None:
        """Return once so many steps are done."""
        self.wait_for(f"step {step}", lambda: self.step >= step)

    def told(self) -> str:
        """All that tells how it is with the job."""
        said = [
            self.kubectl("describe", "ytj", self.name),
            self.kubectl("get", "pods", "--output=wide"),
            self.kubectl("get", "events", "--sort-by=.metadata.creationTimestamp"),
            self.kubectl("describe", "nodes"),
        ]
        for role in ROLES:
            try:
                said.append(self.kubectl("logs", f"{self.name}-{role}", "--tail=40"))
            except ClusterError as error:
                said.append(str(error))
        return "\n".join(said)


def assert_none_was_made_anew(job: Job, pods: list[str]) -> None:
    """The pods of ROLES still have these uids, or were removed, one after another, because the job was done."""
    for role, before in zip(ROLES, pods, strict=True):
        assert job.uid(role) in (before, ""), role
