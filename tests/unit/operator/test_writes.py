"""How the operator's writes go on after what the API server answers."""

import asyncio
from typing import Any

import pytest

from ytrain_operator.kube import Api, ApiError

pytestmark = pytest.mark.unit

MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bot-ytrain", "namespace": "team"}}


class Answering(Api):
    """An API server of which each verb is refused with a status, or answered with an object."""

    def __init__(self, answers: dict[str, int | dict[str, Any]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def _request(self, verb: str, kind: str, path: str, **params: Any) -> dict[str, Any]:
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
