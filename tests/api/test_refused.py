"""What a real API server refuses: a job says so, and goes on once it may."""

from datetime import UTC, datetime
from typing import Any

import pytest
from live import InNamespace, Namespace, condition, until

from ytrain_operator.kube import ApiError
from ytrain_operator.manifests.work_claim import serves, work_claim
from ytrain_operator.observed import observed_job
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.api

NOW = datetime.now(UTC)


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


@pytest.mark.parametrize("fields", [{"model": {"source": "pvc://models/other"}}, {"workers": {"replicas": 1}}])
def test_what_is_fixed_cannot_be_changed(in_namespace: InNamespace, fields: dict[str, Any]) -> None:
    async def test(namespace: Namespace) -> None:
        await namespace.create_job()
        with pytest.raises(Exception, match=r"once the job exists|while the job is suspended"):
            await namespace.change_job(fields)

    in_namespace(test)


def test_a_claim_that_serves_is_known_by_the_refusal_to_change_it(in_namespace: InNamespace) -> None:
    """By the API server's own words: a claim for several nodes serves one worker, one for a single node not several."""

    async def test(namespace: Namespace) -> None:
        storage = {"storage": {"claim": None, "size": "1Gi"}}
        few, several = [
            observed_job(await namespace.create_job({**storage, "workers": {"replicas": count}}, name=name), NOW, ())
            for name, count in (("few", 1), ("several", 2))
        ]
        for made, wanted, expected in ((several, few, True), (few, several, False)):
            claim = work_claim(made, Settings())
            assert claim is not None
            await namespace.api.apply(claim)
            other = work_claim(wanted, Settings())
            assert other is not None
            changed = {**claim, "spec": other["spec"]}
            with pytest.raises(ApiError) as refused:
                await namespace.api.apply(changed)
            assert (refused.value.status, serves(changed, str(refused.value))) == (422, expected)

    in_namespace(test)
