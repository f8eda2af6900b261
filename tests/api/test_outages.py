"""An API server that is away for a while: whatever happened meanwhile, the operator catches up."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cable import Cable, plugged
from live import PATIENCE, InNamespace, Namespace, condition, connect, until

from ytrain_api.errors import SpecError
from ytrain_operator.kube import CALLS, Api, ApiError
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.api


def unanswered() -> float:
    """Requests so far that got no answer."""
    samples = next(iter(CALLS.collect())).samples
    return sum(sample.value for sample in samples if sample.labels.get("code") == "none")


async def much_happens(namespace: Namespace) -> None:
    """What the operator does not see: a pod ends, a job is made and another deleted, training goes on."""
    namespace.tell(step=11)
    await namespace.end_pod("bot-worker-1", 137, reason="OOMKilled")
    await namespace.create_job(name="new")
    await namespace.delete_job("old")


def caught_up(namespace: Namespace, worker: str) -> Callable[[], Awaitable[bool]]:
    """Whether all of it was dealt with; `worker` is the uid of the pod that ended."""

    async def holds() -> bool:
        pods = await namespace.pods()
        names = {f"{job}-{role}" for job in ("bot", "new") for role in ("launcher", "worker-0", "worker-1")}
        return set(pods) == names and pods["bot-worker-1"].metadata.uid != worker

    return holds


async def no_answer(cable: Cable, times: int) -> None:
    """Wait until the operator has noticed so often that nobody answers."""
    before = unanswered()

    async def noticed() -> bool:
        return unanswered() >= before + times

    await until("the operator gets no answer", noticed, patience=2 * PATIENCE)


@pytest.mark.parametrize("how", ["cut", "held"])
def test_an_operator_that_reaches_no_api_server(
    in_namespace: InNamespace, kubeconfig: str, tmp_path: Path, how: str
) -> None:
    async def test(namespace: Namespace) -> None:
        async with plugged(kubeconfig) as cable:
            connection = await connect(cable.kubeconfig(tmp_path))
            async with connection, namespace.operator(Api(connection)) as operator:
                await namespace.create_job()
                await namespace.create_job(name="old")
                await namespace.all_run(6)
                namespace.tell(step=10)
                await namespace.phase_is("Running")
                worker = (await namespace.pods())["bot-worker-1"].metadata.uid
                if how == "cut":
                    await cable.cut()
                else:
                    cable.hold()
                await much_happens(namespace)
                await no_answer(cable, 4 if how == "cut" else 1)
                if how == "cut":
                    await cable.plug()
                else:
                    cable.let_go()
                await until("the operator has caught up", caught_up(namespace, worker), patience=2 * PATIENCE)
                status = await namespace.phase_is("Running")
                assert status["progress"]["step"] == 11
                assert status["podFailures"]["count"] == 1
                assert not operator.done()

    in_namespace(test)


class BusyApi(Api):
    """An API server that is too busy to list pods, while it is told to be."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace.connection)
        self.busy = False
        self.refused = 0

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
        if self.busy and (verb, kind) == ("get", "Pod"):
            self.refused += 1
            raise ApiError(429, "too many requests")
        return await super()._request(verb, kind, path, **params)


def test_a_list_that_is_refused_does_not_end_the_operator(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        api = BusyApi(namespace)
        async with namespace.operator(api, resync_seconds=0.5) as operator:
            await namespace.create_job()
            await namespace.all_run()
            api.busy = True

            async def refused_or_dead() -> bool:
                return api.refused >= 3 or operator.done()

            await until("lists are refused", refused_or_dead)
            api.busy = False
            assert not operator.done()
            await namespace.all_looked_at()

    in_namespace(test)


class WithoutWebhook(Api):
    """An API server one of whose admission webhooks is away."""

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
        if kind == "Pod" and verb in ("post", "patch"):
            raise ApiError(500, 'failed calling webhook "mpod.kueue.x-k8s.io": connection refused')
        return await super()._request(verb, kind, path, **params)


def test_a_child_that_cannot_be_made_for_long_shows_in_the_job(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator(WithoutWebhook(namespace.connection)):
            await namespace.create_job()

            async def told() -> bool:
                ready = condition((await namespace.job()).get("status", {}), "Ready")
                return ready.get("reason") == "ApiServer" and "mpod.kueue.x-k8s.io" in ready["message"]

            await until("the job says what is in the way", told)
            status = (await namespace.job())["status"]
            assert condition(status, "Stalled")["status"] == "False"
        async with namespace.operator():
            await namespace.all_run()
            namespace.tell(step=10)
            await namespace.phase_is("Running")

    in_namespace(test)


class WithoutCrd(Api):
    """An API server that was never told of YTrainJobs, in its own words."""

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
        return await super()._request(verb, kind, path.replace("ytrain.io", "elsewhere.ytrain.io"), **params)


def test_a_cluster_without_the_crd_is_told(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator(WithoutCrd(namespace.connection)) as operator:
            await asyncio.wait([operator], timeout=PATIENCE)
            with pytest.raises(SpecError, match=r"crds\.install"):
                operator.result()

    in_namespace(test)


class Container:
    """The operator's process, started again whenever it ends, as a kubelet does."""

    def __init__(self, namespace: Namespace, kubeconfig: str, folder: Path) -> None:
        settings = Settings(namespace=namespace.name, namespaces=[namespace.name], metrics_port=0)
        self._settings = folder / "settings.yaml"
        self._settings.write_text(yaml.safe_dump(settings.model_dump(mode="json", by_alias=True)))
        self._kubeconfig = kubeconfig
        self.ends: list[int] = []
        """Exit codes so far."""

    async def run(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ytrain_operator.main", self._settings),
                env={**os.environ, "KUBECONFIG": self._kubeconfig},
            )
            try:
                self.ends.append(await process.wait())
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise


def test_an_operator_that_loses_its_lease_starts_again_and_catches_up(
    in_namespace: InNamespace, kubeconfig: str, tmp_path: Path
) -> None:
    """Ten seconds without an answer and it must stop, for another may work: what an outage of a minute comes to."""

    async def test(namespace: Namespace) -> None:
        async with plugged(kubeconfig) as cable:
            container = Container(namespace, cable.kubeconfig(tmp_path), tmp_path)
            running = asyncio.create_task(container.run())
            try:
                await namespace.create_job()
                await namespace.create_job(name="old")
                await namespace.all_run(6)
                worker = (await namespace.pods())["bot-worker-1"].metadata.uid
                await cable.cut()

                async def ended() -> bool:
                    return bool(container.ends)

                await until("it has lost the lease", ended)
                await much_happens(namespace)
                await cable.plug()
                await until("it has caught up", caught_up(namespace, worker), patience=2 * PATIENCE)
                assert container.ends == [1], "it waits for the API server, and does not fail again and again"
            finally:
                running.cancel()
                await asyncio.wait([running])

    in_namespace(test)
