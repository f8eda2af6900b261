"""How the operator's writes go on after what the API server answers."""

import asyncio
import json
from typing import Any

import pytest
from small_cluster import KEY, START, job_object

from ytrain_api.protocol import LauncherStatus
from ytrain_operator.cache import Cache, Key
from ytrain_operator.kube import Api, ApiError
from ytrain_operator.reconciler import REFUSED_SECONDS, SOON_SECONDS, Reconciler
from ytrain_operator.settings import Settings
from ytrain_operator.timestamps import to_text
from ytrain_operator.work_queue import WorkQueue

pytestmark = pytest.mark.unit

MANIFEST = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bot-ytrain", "namespace": "team"}}


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
    assert api.asked == ["post Secret", "patch Secret"]


@pytest.mark.parametrize("status", [404, 429, 500])
def test_what_nobody_can_take_now_is_not_applied_either(status: int) -> None:
    api = Answering({"post": status, "patch": MANIFEST})
    with pytest.raises(ApiError, match="post is refused"):
        asyncio.run(api.make(MANIFEST))
    assert api.asked == ["post Secret"]


class Claiming(Api):
    """An API server that takes everything, where something is the matter with the claim."""

    def __init__(self, *, deleting: bool = False, refusal: str = "") -> None:
        self.made: list[str] = []
        self.deleting, self.refusal = deleting, refusal

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:  # noqa: ARG002
        self.made.append(kind)
        if kind == "YTrainJob/status":
            raise ApiError(404, "the job is gone")
        given = params["body"] if isinstance(params["body"], dict) else json.loads(params["body"])
        of_server = {"uid": f"{len(self.made)}", "resourceVersion": "2", "creationTimestamp": to_text(START)}
        if kind == "PersistentVolumeClaim" and self.refusal:
            raise ApiError(422, f'PersistentVolumeClaim "bot-work" is invalid: {self.refusal}')
        if kind == "PersistentVolumeClaim" and self.deleting:
            of_server["deletionTimestamp"] = to_text(START)
        return {**given, "metadata": {**given["metadata"], **of_server}}


def reconciler_of(api: Api, workers: int = 2) -> Reconciler:
    """A reconciler that knows of a new job with a claim of its own."""
    job = job_object({"storage": {"claim": None, "size": "1Gi"}, "workers": {"replicas": workers}})
    job["metadata"]["resourceVersion"] = "1"
    cache = Cache()
    cache.put_job(job)
    return Reconciler(api=api, cache=cache, queue=WorkQueue[Key](), settings=Settings(), key=KEY, ask=_silent)


async def _silent(_address: str, _token: str) -> LauncherStatus | None:
    return None


def test_a_claim_that_is_being_deleted_is_made_anew_before_pods_use_it() -> None:
    async def run() -> None:
        api = Claiming(deleting=True)
        reconciler = reconciler_of(api)
        for _ in range(2):  # it is looked at again until the claim is gone
            with pytest.raises(ApiError, match="PersistentVolumeClaim bot-work is still being deleted") as refused:
                await reconciler.reconcile(Key("team", "bot"))
            assert refused.value.passing
        assert api.made.count("PersistentVolumeClaim") == 2
        assert "Pod" not in api.made

    asyncio.run(run())


FIXED = (
    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for "
    "bound claims"
)
SMALLER = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"


@pytest.mark.parametrize(
    ("workers", "refusal", "goes_on"),
    [
        (1, f'{FIXED} "AccessModes": [ - "ReadWriteMany" + "ReadWriteOnce" ]', True),
        (2, f'{FIXED} "AccessModes": [ - "ReadWriteOnce" + "ReadWriteMany" ]', False),
        (2, f'{FIXED} - "StorageClassName": "slow" + "StorageClassName": "fast"', True),
        (2, SMALLER, True),
        (1, "spec.resources[storage]: Invalid value: 0: must be greater than zero", False),
    ],
)
def test_a_claim_that_serves_is_taken_as_it_is(workers: int, refusal: str, goes_on: bool) -> None:
    """The number of workers or the settings' class changed, or somebody enlarged the claim; nobody can undo that."""

    async def run() -> None:
        api = Claiming(refusal=refusal)
        again_after = await reconciler_of(api, workers).reconcile(Key("team", "bot"))
        assert api.made.count("Pod") == (workers + 1 if goes_on else 0)
        assert again_after == (SOON_SECONDS if goes_on else REFUSED_SECONDS)

    asyncio.run(run())
