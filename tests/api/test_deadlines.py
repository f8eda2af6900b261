"""What time alone does to a job: deadlines end it, its time to live removes its pods or itself."""

from datetime import UTC, datetime, timedelta

import pytest
from live import InNamespace, Namespace, condition, until

from ytrain_operator.kube import ApiError
from ytrain_operator.timestamps import to_text

pytestmark = pytest.mark.api

MANY_DEVICES = {"workers": {"deviceResource": "nvidia.com/gpu", "devices": 16}}
"""More than a simulated node has."""


async def ended(namespace: Namespace, kind: str, says: str) -> None:
    """Wait until the job has failed for such a reason, and nothing of it runs."""
    status = await namespace.phase_is("Failed")
    assert status["failure"]["class"] == kind
    assert status["failure"]["message"].startswith(says)
    assert condition(status, "Failed")["reason"] == kind

    async def nothing_runs() -> bool:
        return all(pod.status.phase != "Running" for pod in (await namespace.pods()).values())

    await until("no pod runs any more", nothing_runs)


def test_a_job_that_takes_too_long_ends(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.create_job({"policy": {"activeDeadline": "1s"}})
            await ended(namespace, "DeadlineExceeded", "policy.activeDeadline: 1s has passed")

    in_namespace(test)


def test_a_job_that_waits_too_long_ends_and_says_for_what(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.create_job(MANY_DEVICES)

            async def told() -> bool:
                ready = condition((await namespace.job()).get("status", {}), "Ready")
                return ready.get("reason") == "Unschedulable" and ready["message"].startswith("bot-worker-0: ")

            await until("the job says what it waits for", told)  # a busy scheduler may not, within a short deadline
            await namespace.change_job({"policy": {"pendingDeadline": "1s"}})
            said = "policy.pendingDeadline: 1s has passed; bot-worker-0: 0/2 nodes are available"
            await ended(namespace, "Unschedulable", said)

    in_namespace(test)


def test_a_finished_jobs_pods_go_after_their_time_to_live(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.create_job({"policy": {"keepPods": "all", "ttlAfterFinished": "1h"}})
            await namespace.all_run()
            await namespace.finish()
            await namespace.phase_is("Succeeded")
            assert len(await namespace.pods()) == 3
            await namespace.change_job({"policy": {"ttlAfterFinished": "2s"}})

            async def gone() -> bool:
                return not await namespace.pods()

            await until("its pods are gone", gone)
        assert (await namespace.job())["status"]["phase"] == "Succeeded"

    in_namespace(test)


def test_a_finished_job_goes_after_its_time_to_live(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.create_job({"policy": {"ttlAfterFinished": "1s", "ttlDeletes": "job"}})
            await namespace.all_run()
            await namespace.finish()

            async def gone() -> bool:
                try:
                    await namespace.job()
                except ApiError as error:
                    assert error.status == 404
                    return True
                return False

            await until("the job is gone", gone)
            await namespace.becomes_empty()

    in_namespace(test)


def test_an_operator_that_was_away_finds_the_deadline_passed(in_namespace: InNamespace) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await namespace.create_job({"policy": {"activeDeadline": "1h"}})
            await namespace.phase_is("Starting")  # where it stays: no launcher answers
        await namespace.change_status({"phaseSince": to_text(datetime.now(UTC) - timedelta(hours=2))})
        async with namespace.operator():
            status = await namespace.phase_is("Failed")
            assert status["failure"]["message"] == "policy.activeDeadline: 1h has passed"

    in_namespace(test)
