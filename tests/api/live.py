"""A namespace of a real API server, jobs in it, operators that run beside the test, launchers that say what it wants.

Kubelets are simulated (kwok): pods run at once; how their containers end, a test writes into their status.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import client, config
from small_cluster import job_object

from ytrain_api.protocol import LauncherStatus
from ytrain_operator.kube import CALLS, RESOURCES, Api, ApiError
from ytrain_operator.main import Operator
from ytrain_operator.settings import Settings
from ytrain_operator.timestamps import to_text

PATIENCE = 180.0
CRD = Path(__file__).parents[2] / "crds/ytrainjobs.ytrain.io.yaml"
CLAIMS = ("models", "data", "work")
"""Volumes that the tests' jobs name."""
NOT_OURS = {f"PersistentVolumeClaim {claim}" for claim in CLAIMS}
"""What the cluster binds in a new namespace at any time."""


async def until(what: str, holds: Callable[[], Awaitable[Any]], patience: float = PATIENCE) -> Any:
    """Wait until something holds, and return it."""
    deadline = asyncio.get_running_loop().time() + patience
    while not (value := await holds()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"after {patience:.0f} s still not: {what}")
        await asyncio.sleep(0.05)
    return value


def requests_made() -> Counter[tuple[str, str]]:
    """Requests of this process's operators and tests so far, by verb as roles have it and resource."""
    totals: Counter[tuple[str, str]] = Counter()
    for sample in next(iter(CALLS.collect())).samples:
        if sample.name.endswith("_total"):
            verb = {"post": "create"}.get(sample.labels["verb"], sample.labels["verb"])
            totals[verb, sample.labels["resource"]] += int(sample.value)
    return totals


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """One of a job's conditions; empty while it has none."""
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


class Namespace:
    """One namespace, as a user and as its kubelets see it."""

    def __init__(self, connection: client.ApiClient, name: str) -> None:
        self.name = name
        self.connection = connection
        self.api = Api(connection)
        self.core = client.CoreV1Api(connection)
        self.objects = client.CustomObjectsApi(connection)
        self.told: LauncherStatus | None = None
        """What every launcher answers."""

    async def ask(self, _address: str, _token: str) -> LauncherStatus | None:
        return self.told

    def tell(self, state: str = "Running", *, step: int = 0, replicas: int = 2, **more: Any) -> None:
        progress = {"step": step, "totalSteps": 100, "loss": 2.0} if step else None
        counts = {"desired": replicas, "ready": replicas}
        told = {"job": "bot", "state": state, "generation": 1, "restarts": 0, "workers": counts, "progress": progress}
        self.told = LauncherStatus.model_validate({k: v for k, v in {**told, **more}.items() if v is not None})

    async def make_volume(self, claim: str) -> None:
        """A claim and a volume bound to each other; simulated kubelets mount nothing."""
        size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
        name = f"{self.name}-{claim}"
        volume = {
            "metadata": {"name": name},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "hostPath": {"path": f"/nowhere/{claim}"},
                "claimRef": {"namespace": self.name, "name": claim},
            },
        }
        asked = {
            "metadata": {"name": claim},
            "spec": {
                "accessModes": modes,
                "resources": {"requests": size},
                "storageClassName": "",
                "volumeName": name,
            },
        }
        await self.core.create_persistent_volume(volume)
        await self.core.create_namespaced_persistent_volume_claim(self.name, asked)

    async def delete_volume(self, claim: str) -> None:
        await self.core.delete_persistent_volume(f"{self.name}-{claim}")

    async def create_job(self, spec: dict[str, Any] | None = None, *, name: str = "bot") -> dict[str, Any]:
        body = job_object(spec, name=name)
        body["metadata"] = {"name": name, "namespace": self.name}
        return await self.objects.create_namespaced_custom_object(
            "ytrain.io", "v1alpha1", self.name, "ytrainjobs", body
        )

    async def job(self, name: str = "bot") -> dict[str, Any]:
        return await self.api.get("YTrainJob", self.name, name)

    async def change_job(self, spec: dict[str, Any], name: str = "bot") -> None:
        """As `kubectl patch --type merge` does."""
        body = {"spec": spec}
        await self.objects.patch_namespaced_custom_object(
            "ytrain.io", "v1alpha1", self.name, "ytrainjobs", name, body, _content_type="application/merge-patch+json"
        )

    async def change_status(self, status: dict[str, Any], name: str = "bot") -> None:
        body = {"status": status}
        await self.objects.patch_namespaced_custom_object_status(
            "ytrain.io", "v1alpha1", self.name, "ytrainjobs", name, body, _content_type="application/merge-patch+json"
        )

    async def delete_job(self, name: str = "bot") -> None:
        await self.objects.delete_namespaced_custom_object("ytrain.io", "v1alpha1", self.name, "ytrainjobs", name)

    async def pods(self) -> dict[str, Any]:
        """The jobs' pods, by name."""
        return {pod.metadata.name: pod for pod in (await self.core.list_namespaced_pod(self.name)).items}

    async def phase_is(self, phase: str, name: str = "bot") -> dict[str, Any]:
        """Wait for a phase; returns the status."""
        status: dict[str, Any] = {}

        async def reached() -> bool:
            status.clear()
            status.update((await self.job(name)).get("status", {}))
            return bool(status.get("phase") == phase)

        try:
            await until(f"phase {phase}", reached)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(status, indent=1)}") from None
        return status

    async def all_looked_at(self, times: int = 2) -> None:
        """Wait until operators with a short `resyncSeconds` have listed everything so often."""
        before = requests_made()["get", "pods"]

        async def listed() -> bool:
            return requests_made()["get", "pods"] > before + times

        await until("everything is looked at again", listed)

    async def versions(self) -> dict[str, str]:
        """Versions of everything in the namespace that an operator writes, events included."""
        found = {}
        for kind in RESOURCES:
            async for items, _ in self.api.pages(kind, namespace=self.name):
                found |= {f"{kind} {each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in items}
        return {name: version for name, version in found.items() if name not in NOT_OURS}

    async def becomes_empty(self) -> None:
        """Wait until nothing of any job is left; events go by themselves.

        The garbage collector learns of a new CRD every 30 seconds: before, it misses that owners are gone.
        """
        await until("nothing is left", self._is_empty, patience=2 * PATIENCE)

    async def _is_empty(self) -> bool:
        left = {name for name in await self.versions() if not name.startswith("Event ")}
        return left <= {"Secret ytrain-operator-key"}

    async def all_run(self, count: int = 3) -> None:
        async def run() -> bool:
            return sum(pod.status.phase == "Running" for pod in (await self.pods()).values()) == count

        await until(f"{count} pods run", run)

    async def train(self) -> None:
        """A job in the middle of training."""
        await self.create_job()
        await self.all_run()
        self.tell(step=10)
        await self.phase_is("Running")

    async def end_pod(self, name: str, exit_code: int, *, message: str = "", reason: str = "Error") -> None:
        """A pod's container ends."""
        ended = {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": _now(),
        }
        phase = "Failed" if exit_code else "Succeeded"
        container = {
            "name": "trainer",
            "image": "i",
            "imageID": "i",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        await self.core.patch_namespaced_pod_status(
            name, self.name, {"status": {"phase": phase, "containerStatuses": [container]}}
        )

    async def finish(self, exit_code: int = 0, message: str = "done", *, workers: int = 2) -> None:
        """The launcher tells its workers how the job ended; they leave, then it leaves with its last word."""
        if self.told is not None:
            self.told = self.told.model_copy(update={"exit_code": exit_code})
        for index in range(workers):
            await self.end_pod(f"bot-worker-{index}", exit_code)
        await self.end_pod("bot-launcher", exit_code, message=json.dumps({"exitCode": exit_code, "message": message}))

    @asynccontextmanager
    async def operator(
        self, api: Api | None = None, stop: asyncio.Event | None = None, **settings: Any
    ) -> AsyncIterator[asyncio.Task[None]]:
        """An operator for this namespace, running beside the test, until its end or `stop`."""
        chosen = Settings.model_validate({"namespace": self.name, "namespaces": [self.name], **settings})
        stop = stop or asyncio.Event()
        task = asyncio.create_task(Operator(api or self.api, chosen, self.ask).run(stop))
        try:
            yield task
        finally:
            stop.set()
            done, _ = await asyncio.wait([task], timeout=PATIENCE)
            assert done, f"after {PATIENCE:.0f} s the operator has not ended"
            if not task.cancelled():
                task.exception()


class MortalApi(Api):
    """An API that ends its operator after some writes: right after the server took the last one."""

    def __init__(self, connection: client.ApiClient, writes: int) -> None:
        super().__init__(connection)
        self.left = writes
        self.dead = asyncio.Event()

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
        if self.left <= 0 and verb != "get":
            raise ApiError(None, "killed")
        answer = await super()._request(verb, kind, path, **params)
        if verb != "get":
            self.left -= 1
            if self.left == 0:
                self.dead.set()
        return answer


class DeletingApi(Api):
    """An API whose job is deleted by its user right before one of the operator's writes."""

    def __init__(self, namespace: Namespace, writes: int) -> None:
        super().__init__(namespace.connection)
        self.deleted = asyncio.Event()
        self._namespace = namespace
        self._left = writes

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
        if verb != "get":
            if self._left == 0:
                await self._namespace.delete_job()
                self.deleted.set()
            self._left -= 1
        return await super()._request(verb, kind, path, **params)


InNamespace = Callable[[Callable[[Namespace], Awaitable[None]]], None]
"""Runs a test with a namespace of its own."""


async def connect(kubeconfig: str) -> client.ApiClient:
    settings = client.Configuration()
    await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
    settings.connection_pool_maxsize = 64
    return client.ApiClient(settings)


async def install_crd(kubeconfig: str) -> None:
    """Put our CRD into a cluster, and wait until it is served."""
    connection = await connect(kubeconfig)
    async with connection:
        extensions = client.ApiextensionsV1Api(connection)
        body = yaml.safe_load(CRD.read_text())
        name = body["metadata"]["name"]
        await extensions.patch_custom_resource_definition(
            name, body, field_manager="tests", force=True, _content_type="application/apply-patch+yaml"
        )

        async def established() -> bool:
            found = await extensions.read_custom_resource_definition(name)
            return any(each.type == "Established" and each.status == "True" for each in found.status.conditions or ())

        await until("the CRD is established", established)


def _now() -> str:
    return to_text(datetime.now(UTC))
