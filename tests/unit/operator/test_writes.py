"""How the operator's writes go on after what the API server answers."""

import asyncio
from typing import Any

import pytest
from small_cluster import KEY, job_object

from ytrain_api.protocol import LauncherStatus
from ytrain_operator.cache import Cache, Key
from ytrain_operator.kube import Api, ApiError
from ytrain_operator.reconciler import Reconciler
from ytrain_operator.settings import Settings
from ytrain_operator.work_queue import WorkQueue

pytestmark = pytest.mark.unit

MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bot-ytrain", "namespace": "team"}}


class Answering(Api):
    """An API server of which each verb is refused with a status, or answered with an object."""

    def __init__(self, answers: dict[str, int | dict[str, Any]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:  # noqa: ARG002
        self.asked.append(f"{verb} {kind}")
        answer = self.answers[verb]
        if isinstance(answer, int):
            raise ApiError(answer, f"{verb} is refused")
        return answer


@pytest.mark.parametrize("status", [400, 403, 409, 422])
def test_what_cannot_be_made_is_applied(status: int) -> None:
    """403: a claim that outlived a former job fills its quota, which is asked before the name is."""
    api = Answering({"post": status, "patch": MANIFEST})
    assert asyncio.run(api.make(MANIFEST)) == MANIFEST
    assert api.asked == ["post ConfigMap", "patch ConfigMap"]


@pytest.mark.parametrize("status", [404, 429, 500])
def test_what_nobody_can_take_now_is_not_applied_either(status: int) -> None:
    api = Answering({"post": status, "patch": MANIFEST})
    with pytest.raises(ApiError, match="post is refused"):
        asyncio.run(api.make(MANIFEST))
    assert api.asked == ["post ConfigMap"]


class Terminating(Api):
    """An API server that takes everything, and where the claim is being deleted."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:  # noqa: ARG002
        self.made.append(kind)
        ending = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if kind == "PersistentVolumeClaim" else {}
        return {**params["body"], "metadata": {**params["body"]["metadata"], **ending}}


async def _silent(_address: str, _token: str) -> LauncherStatus | None:
    return None


def test_a_claim_that_is_being_deleted_is_made_anew_before_pods_use_it() -> None:
    async def run() -> None:
        api, cache, queue = Terminating(), Cache(), WorkQueue[Key]()
        reconciler = Reconciler(api=api, cache=cache, queue=queue, settings=Settings(), key=KEY, ask=_silent)
        job = job_object({"storage": {"claim": None, "size": "1Gi"}})
        job["metadata"]["resourceVersion"] = "1"
        cache.put_job(job)
        for _ in range(2):  # it is looked at again until the claim is gone
            with pytest.raises(ApiError, match="PersistentVolumeClaim bot-work is still being deleted") as refused:
                await reconciler.reconcile(Key("team", "bot"))
            assert refused.value.passing
        assert api.made.count("PersistentVolumeClaim") == 2
        assert "Pod" not in api.made

    asyncio.run(run())
