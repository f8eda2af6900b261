"""Objects that are there already under the name of a job's child: a user's, a former job's, the job's own."""

from datetime import UTC, datetime

import pytest
from kubernetes.aio import client
from live import InNamespace, Namespace, condition, until
from prometheus_client import REGISTRY

from ytrain_operator.kube import ApiError
from ytrain_operator.observed import observed_job
from ytrain_operator.planner.decide import decide
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.api

PODS = {"bot-launcher", "bot-worker-0", "bot-worker-1"}


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
            await namespace.train()
            await namespace.delete_job()

            async def gone() -> bool:
                return not await namespace.pods()

            await until("the job's pods are gone", gone)
        assert len(before) == 4
        assert await versions() == before

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
        await namespace.core.create_namespaced_secret(namespace.name, {"metadata": metadata})

        def refused() -> float:
            which = {"verb": "patch", "resource": "secrets", "code": "422"}
            return REGISTRY.get_sample_value("ytrain_operator_api_calls_total", which) or 0.0

        async def refused_again() -> bool:
            return refused() > before

        before = refused()
        async with namespace.operator():
            await namespace.create_job()
            await until("the child of the former job is met", refused_again)
            await namespace.core.patch_namespaced_secret(
                "bot-ytrain", namespace.name, [{"op": "remove", "path": "/metadata/finalizers"}]
            )
            await namespace.all_run()
            status = await namespace.phase_is("Starting")
            assert condition(status, "Stalled").get("status") != "True"
            made = await namespace.core.read_namespaced_secret("bot-ytrain", namespace.name)
            assert [owner.uid for owner in made.metadata.owner_references] != ["0-0"] and made.data

    in_namespace(test)


def test_a_pod_that_is_there_is_not_made_again_and_a_field_that_no_pod_has_is_refused(
    in_namespace: InNamespace,
) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.train()
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
