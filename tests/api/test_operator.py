"""The life of a job on a real API server, with garbage collection and scheduling."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from live import PATIENCE, DeletingApi, InNamespace, MortalApi, Namespace, condition, until

from ytrain_operator.operator_key import operator_key

pytestmark = pytest.mark.api

PODS = {"bot-launcher", "bot-worker-0", "bot-worker-1"}


def test_from_creation_to_the_end(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.train()
            assert set(await namespace.pods()) == PODS
            await namespace.finish()
            status = await namespace.phase_is("Succeeded")
            assert condition(status, "Complete")["status"] == "True"
            assert status["progress"]["step"] == 10

            async def gone() -> bool:
                return not await namespace.pods()

            await until("pods of a job that is done are gone", gone)
        job = await namespace.job()
        assert "finalizers" not in job["metadata"]
        assert "annotations" not in job["metadata"]

    in_namespace(test)


def test_deleting_the_job_deletes_everything_else(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.train()
            await namespace.delete_job()
            await namespace.becomes_empty()

    in_namespace(test)


@pytest.mark.parametrize("writes", [0, 1, 3, 5, 7])
def test_a_job_that_is_deleted_while_it_starts_leaves_nothing(in_namespace: InNamespace, writes: int) -> None:
    async def test(namespace: Namespace) -> None:
        await operator_key(namespace.api, namespace.name)  # so that all writes are of the job
        api = DeletingApi(namespace, writes)
        async with namespace.operator(api):
            await namespace.create_job()
            await asyncio.wait_for(api.deleted.wait(), PATIENCE)
            await namespace.becomes_empty()

    in_namespace(test)


def test_suspended_and_resumed_with_another_number_of_workers(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.train()
            await namespace.change_job({"suspend": True})
            await namespace.phase_is("Suspended")
            assert not await namespace.pods()
            namespace.told = None
            await namespace.change_job({"suspend": False, "workers": {"replicas": 3}})
            await namespace.all_run(4)
            namespace.tell(step=11, replicas=3)
            await namespace.phase_is("Running")

    in_namespace(test)


def test_a_worker_that_is_killed_is_replaced(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.train()
            before = (await namespace.pods())["bot-worker-1"].metadata.uid
            await namespace.end_pod("bot-worker-1", 137, reason="OOMKilled", message="step 10")

            async def replaced() -> bool:
                pod = (await namespace.pods()).get("bot-worker-1")
                return pod is not None and pod.metadata.uid != before

            await until("another worker", replaced)
            status = await namespace.phase_is("Running")
            assert status["failure"]["class"] == "HostOutOfMemory"
            assert status["podFailures"]["count"] == 1

    in_namespace(test)


def test_a_finished_job_whose_pods_are_deleted_stays_finished(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator(resyncSeconds=1):
            await namespace.train()
            await namespace.finish(3, "train.jsonl:7: no JSON")
            status = await namespace.phase_is("Failed")
            assert status["failure"]["class"] == "DataError"
            assert condition(status, "Stalled")["status"] == "True"
            assert set(await namespace.pods()) == PODS, "kept for their logs"
            for name in PODS:
                await namespace.core.delete_namespaced_pod(name, namespace.name)

            async def gone() -> bool:
                return not await namespace.pods()

            await until("its pods are gone", gone)
            before = await namespace.versions()
            await namespace.all_looked_at()
            assert await namespace.versions() == before

    in_namespace(test)


def test_an_operator_that_is_killed_after_any_write(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        made: set[str] = set()

        async def lives(writes: int) -> None:
            """An operator that dies after some writes, or has nothing more to write."""
            mortal = MortalApi(namespace.connection, writes)
            async with namespace.operator(mortal):
                try:
                    async with asyncio.timeout(3):
                        await mortal.dead.wait()
                except TimeoutError:
                    return
            made.update(pod.metadata.uid for pod in (await namespace.pods()).values())

        await namespace.create_job()
        for writes in range(1, 12):  # the children, an event, the status
            await lives(writes)
        async with namespace.operator():
            await namespace.all_run()
            namespace.tell(step=10)
            await namespace.phase_is("Running")
            made.update(pod.metadata.uid for pod in (await namespace.pods()).values())
        await namespace.finish()
        for writes in range(1, 6):
            await lives(writes)
        async with namespace.operator():
            await namespace.phase_is("Succeeded")
        assert len(made) == 3, "no pod was made twice"

    in_namespace(test)


def test_pods_that_kueue_holds_are_replaced_and_go_with_their_job(in_namespace: InNamespace) -> None:
    """Its finalizer stays until another pod of the group has another name, which ours never have."""

    async def test(namespace: Namespace) -> None:
        async def hold() -> set[str]:
            """As Kueue's webhook does; returns the pods' uids."""
            pods = await namespace.pods()
            for name in pods:
                body = {"metadata": {"finalizers": ["kueue.x-k8s.io/managed"]}}
                await namespace.core.patch_namespaced_pod(
                    name, namespace.name, body, _content_type="application/merge-patch+json"
                )
            return {pod.metadata.uid for pod in pods.values()}

        async with namespace.operator():
            await namespace.train()
            uids = await hold()
            await namespace.end_pod("bot-worker-0", 1)

            async def replaced() -> bool:
                pods = await namespace.pods()
                return len(pods) == 3 and pods["bot-worker-0"].metadata.uid not in uids

            await until("another worker", replaced)
            await namespace.all_run()
            await hold()
            await namespace.finish(4, "it diverged")
            await namespace.phase_is("Failed")

            async def marked() -> bool:
                pods = (await namespace.pods()).values()
                return all(pod.metadata.annotations.get("kueue.x-k8s.io/retriable-in-group") == "false" for pod in pods)

            await until("Kueue is told that the group is over", marked)
            await namespace.delete_job()

            async def gone() -> bool:
                return not await namespace.pods()

            await until("the pods are gone", gone)

    in_namespace(test)


def test_two_operators_at_once_do_no_harm(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        stop = asyncio.Event()  # of both: in one process each one's end waits for what the other still does
        async with AsyncExitStack() as both:
            for _ in range(2):
                await both.enter_async_context(namespace.operator(stop=stop))
            await namespace.train()
            uids = {pod.metadata.uid for pod in (await namespace.pods()).values()}
            await namespace.end_pod("bot-worker-0", 1)

            async def replaced() -> bool:
                pods = await namespace.pods()
                return len(pods) == 3 and pods["bot-worker-0"].metadata.uid not in uids

            await until("another worker", replaced)
            status = await namespace.phase_is("Running")
            assert status["podFailures"]["count"] == 1
            await namespace.finish()
            await namespace.phase_is("Succeeded")

    in_namespace(test)


def test_events_tell_the_course_of_a_job(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.train()
            await namespace.finish()

            async def reasons() -> list[str]:
                events = (await namespace.core.list_namespaced_event(namespace.name)).items
                return [event.reason for event in events if event.involved_object.kind == "YTrainJob"]

            async def told() -> bool:
                return {"Running", "Succeeded"} <= set(await reasons())

            await until("begin and end are told", told)  # each after the status that it follows from
        said = await reasons()
        assert len(said) == len(set(said)), "each once"

    in_namespace(test)


def test_every_character_is_written(in_namespace: InNamespace) -> None:
    """JSON may write a character beyond the first 65,536 as two escapes; the API server reads an apply as YAML."""

    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.create_job({"workers": {"template": {"metadata": {"annotations": {"note": "\U0001f3f4"}}}}})
            await namespace.all_run()
            namespace.tell(step=10, failure={"class": "LostPeer", "message": "GLHF! \U0001f3d6\ufe0f"})
            status = await namespace.phase_is("Running")
            assert "\U0001f3d6" in status["failure"]["message"]
            pod = await namespace.api.get("Pod", namespace.name, "bot-worker-0")
            assert pod["metadata"]["annotations"]["note"] == "\U0001f3f4"

    in_namespace(test)
