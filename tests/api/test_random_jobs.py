"""Jobs in which anything may be wrong: the API server and the laptop's loader say the same, the operator lives on."""

import asyncio
import json
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from kubernetes.aio.client import ApiException
from live import InNamespace, Namespace, condition, until
from random_jobs import mutated_specs
from small_cluster import SPEC, job_object

from ytrain_api.check import check_job
from ytrain_operator.reconciler import ERRORS

pytestmark = pytest.mark.api

MOST_WORKERS = 3
"""Jobs that ask for more are made suspended: thousands of pods would tell nothing more."""


ALWAYS_THE_SAME = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def bugs() -> float:
    return sum(
        sample.value
        for sample in next(iter(ERRORS.collect())).samples
        if sample.name.endswith("_total") and sample.labels["kind"] == "bug"
    )


class Applicant:
    """Brings jobs to the API server, as `kubectl create` does: unknown fields are refused."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()
        self.accepted: list[str] = []
        self.refused = 0

    def verdicts(self, spec: dict[str, Any]) -> tuple[str, str]:
        """What the API server and the loader have against a job; nothing if it is good."""
        job = self._job(f"job-{len(self.accepted)}", spec)
        _, findings = check_job(job)
        asked: Future[str] = asyncio.run_coroutine_threadsafe(self._create(job), self._loop)
        refusal = asked.result()
        if refusal:
            self.refused += 1
        else:
            self.accepted.append(job["metadata"]["name"])
        return refusal, "\n".join(map(str, findings))

    def _job(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        workers = spec.get("workers")
        replicas = workers.get("replicas") if isinstance(workers, dict) else None
        if isinstance(replicas, int) and replicas > MOST_WORKERS:
            spec = {**spec, "suspend": True}
        job = job_object(name=name)
        return {**job, "metadata": {"name": name, "namespace": self._namespace.name}, "spec": spec}

    async def _create(self, job: dict[str, Any]) -> str:
        try:
            await self._namespace.objects.create_namespaced_custom_object(
                "ytrain.io", "v1alpha1", self._namespace.name, "ytrainjobs", job, field_validation="Strict"
            )
        except ApiException as error:
            assert error.status in (400, 422), error
            return str(json.loads(error.body)["message"])
        return ""


def test_both_say_the_same_of_300_jobs_and_the_operator_handles_the_good_ones(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        applicant = Applicant(namespace)

        @ALWAYS_THE_SAME
        @given(mutated_specs(SPEC))
        def try_all(spec: dict[str, Any]) -> None:
            refusal, findings = applicant.verdicts(spec)
            note(f"API server: {refusal or 'accepted'}\nloader: {findings or 'accepted'}")
            assert bool(refusal) == bool(findings)
            if refusal:
                assert "spec" in refusal
                assert len(refusal) < 4000

        before = bugs()
        async with namespace.operator() as operator:
            await asyncio.to_thread(try_all)

            async def handled() -> bool:
                async for jobs, _ in namespace.api.pages("YTrainJob", namespace=namespace.name):
                    if any("observedGeneration" not in job.get("status", {}) for job in jobs):
                        return False
                return True

            await until("every job has a status", handled)
            async for jobs, _ in namespace.api.pages("YTrainJob", namespace=namespace.name):
                for job in jobs:
                    assert condition(job["status"], "Ready").get("message") is not None, job
                    assert condition(job["status"], "Stalled")["reason"] != "UnknownSpec", job
            assert not operator.done()
        assert bugs() == before
        assert min(len(applicant.accepted), applicant.refused) >= 10, "the jobs are neither all good nor all bad"

    in_namespace(test)
