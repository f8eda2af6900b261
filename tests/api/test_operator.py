"""The operator on a real API server, with garbage collection, scheduling, quotas and Pod Security."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.aio import client
from live import PATIENCE, DeletingApi, InNamespace, MortalApi, Namespace, condition, until
from prometheus_client import REGISTRY

from ytrain_operator.kube import ApiError
from ytrain_operator.observed import observed_job
from ytrain_operator.operator_key import operator_key
from ytrain_operator.planner.decide import decide
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.api

PODS = {"bot-launcher", "bot-worker-0", "bot-worker-1"}


async def trained(namespace: Namespace) -> None:
    """A job in the middle of training."""
    await namespace.create_job()
    await namespace.all_run()
    namespace.tell(step=10)
    await namespace.phase_is("Running")


def test_from_creation_to_the_end(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await trained(namespace)
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
            await trained(namespace)
            await namespace.delete_job()
            await namespace.becomes_empty()

    in_namespace(test)


def test_nothing_of_the_users_is_taken_over(in_namespace: InNamespace) -> None:
    """Such as the Secret `hf-token`, by a job `hf`: it would get the job's token, and go with the job."""

    async def test(namespace: Namespace) -> None:
        of_a_user = {"labels": {"of": "a-user"}}
        secret = {"metadata": {"name": "bot-token", **of_a_user}, "stringData": {"HF_TOKEN": "x"}}
        await namespace.core.create_namespaced_secret(namespace.name, secret)
        await namespace.core.create_namespaced_config_map(
            namespace.name, {"metadata": {"name": "bot-job", **of_a_user}, "data": {"a": "b"}}
        )
        await namespace.core.create_namespaced_service(
            namespace.name, {"metadata": {"name": "bot-launcher", **of_a_user}, "spec": {"ports": [{"port": 80}]}}
        )
        networks = client.NetworkingV1Api(namespace.connection)
        await networks.create_namespaced_network_policy(
            namespace.name, {"metadata": {"name": "bot", **of_a_user}, "spec": {"podSelector": {}}}
        )

        async def versions() -> list[str]:
            lists = [
                namespace.core.list_namespaced_secret, namespace.core.list_namespaced_config_map,
                namespace.core.list_namespaced_service, networks.list_namespaced_network_policy,
            ]  # fmt: skip
            found = [await each(namespace.name, label_selector="of=a-user") for each in lists]
            return [item.metadata.resource_version for each in found for item in each.items]

        before = await versions()
        async with namespace.operator():
            await trained(namespace)
            await namespace.delete_job()

            async def gone() -> bool:
                return not await namespace.pods()

            await until("the job's pods are gone", gone)
        assert len(before) == 4
        assert await versions() == before

    in_namespace(test)


@pytest.mark.parametrize("writes", [0, 1, 3, 5, 8])
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
            await trained(namespace)
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
            await trained(namespace)
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
            await trained(namespace)
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
            await trained(namespace)
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
            await trained(namespace)
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


def test_a_job_made_again_waits_for_a_child_of_the_former_one(in_namespace: InNamespace) -> None:
    """The garbage collector removes it sooner or later; here a finalizer holds it."""

    async def test(namespace: Namespace) -> None:
        former = {
            "apiVersion": "ytrain.io/v1alpha1",
            "kind": "YTrainJob",
            "name": "bot",
            "uid": "0-0",
            "controller": True,
        }
        metadata = {"name": "bot-ytrain", "ownerReferences": [former], "finalizers": ["test.ytrain.io/held"]}
        await namespace.core.create_namespaced_config_map(namespace.name, {"metadata": metadata})

        def refused() -> float:
            which = {"verb": "patch", "resource": "configmaps", "code": "422"}
            return REGISTRY.get_sample_value("ytrain_operator_api_calls_total", which) or 0.0

        async def refused_again() -> bool:
            return refused() > before

        before = refused()
        async with namespace.operator():
            await namespace.create_job()
            await until("the child of the former job is met", refused_again)
            await namespace.core.patch_namespaced_config_map(
                "bot-ytrain", namespace.name, [{"op": "remove", "path": "/metadata/finalizers"}]
            )
            await namespace.all_run()
            status = await namespace.phase_is("Starting")
            assert condition(status, "Stalled").get("status") != "True"
            made = await namespace.core.read_namespaced_config_map("bot-ytrain", namespace.name)
            assert [owner.uid for owner in made.metadata.owner_references] != ["0-0"] and made.data

    in_namespace(test)


def test_a_pod_that_is_there_is_not_made_again_and_a_field_that_no_pod_has_is_refused(
    in_namespace: InNamespace,
) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await trained(namespace)
        observed = observed_job(await namespace.job(), datetime.now(UTC), ())
        pod = decide(observed, Settings(), b"k" * 32).pods[0]
        before = (await namespace.pods())[pod["metadata"]["name"]]
        assert (await namespace.api.make(pod))["metadata"]["uid"] == before.metadata.uid
        unknown = {**pod, "metadata": {**pod["metadata"], "name": "other"}, "spec": {**pod["spec"], "nodes": 1}}
        with pytest.raises(ApiError, match=r"\.spec\.nodes: field not declared in schema") as refused:
            await namespace.api.make(unknown)
        assert not refused.value.passing
        assert set(await namespace.pods()) == PODS

    in_namespace(test)


def test_a_quota_is_told_and_waited_for(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        quota = {"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "1"}}}
        await namespace.core.create_namespaced_resource_quota(namespace.name, quota)

        async def counted() -> bool:
            found = await namespace.core.read_namespaced_resource_quota("pods", namespace.name)
            return bool(found.status.hard)

        await until("the quota is in force", counted)
        async with namespace.operator():
            await namespace.create_job()

            async def told() -> dict[str, Any] | None:
                status = (await namespace.job()).get("status", {})
                ready = condition(status, "Ready")
                return ready if ready.get("reason") == "QuotaExceeded" else None

            ready = await until("the quota is told", told)
            assert "exceeded quota: pods" in ready["message"]
            status = (await namespace.job())["status"]
            assert condition(status, "Stalled")["status"] == "False"

    in_namespace(test)


def test_pod_security_refuses_a_template_and_the_job_says_so(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            template = {"spec": {"hostNetwork": True}}
            await namespace.create_job({"workers": {"template": template}})

            async def told() -> dict[str, Any] | None:
                status = (await namespace.job()).get("status", {})
                stalled = condition(status, "Stalled")
                return stalled if stalled.get("status") == "True" else None

            stalled = await until("the refusal is told", told)
            assert stalled["reason"] == "PodSecurity"
            assert "host namespaces" in stalled["message"]

            async def warned() -> bool:
                events = (await namespace.core.list_namespaced_event(namespace.name)).items
                return any((event.type, event.reason) == ("Warning", "PodSecurity") for event in events)

            await until("an event warns of it", warned)

    in_namespace(test)


def test_events_tell_the_course_of_a_job(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await trained(namespace)
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


@pytest.mark.parametrize("fields", [{"model": {"source": "pvc://models/other"}}, {"workers": {"replicas": 1}}])
def test_what_is_fixed_cannot_be_changed(in_namespace: InNamespace, fields: dict[str, Any]) -> None:
    async def test(namespace: Namespace) -> None:
        await namespace.create_job()
        with pytest.raises(Exception, match=r"once the job exists|while the job is suspended"):
            await namespace.change_job(fields)

    in_namespace(test)
