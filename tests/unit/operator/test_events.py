"""Events: the same news again is one event that counts, by whoever tells it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import jsonpatch
import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from small_cluster import START, SmallCluster

from ytrain_operator.kube import Api
from ytrain_operator.manifests.event import event_manifest
from ytrain_operator.news import News, tell
from ytrain_operator.status.events import Event
from ytrain_operator.timestamps import to_text

pytestmark = pytest.mark.unit

STARTING = Event("Normal", "Starting", "2 of 3 pods run")


class Events:
    """The events of an API server, as far as `tell` asks for them."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.after_get: Callable[[], Awaitable[None]] | None = None

    def routes(self) -> list[web.RouteDef]:
        path = "/api/v1/namespaces/team/events"
        return [
            web.post(path, self.create),
            web.get(path + "/{name}", self.get),
            web.patch(path + "/{name}", self.patch),
        ]

    async def create(self, request: web.Request) -> web.Response:
        event = await request.json()
        if event["metadata"]["name"] in self.stored:
            return web.json_response({"message": "already exists"}, status=409)
        return self.store(event)

    async def get(self, request: web.Request) -> web.Response:
        answer = web.json_response(self.stored[request.match_info["name"]])
        if self.after_get is not None:
            meanwhile, self.after_get = self.after_get, None
            await meanwhile()
        return answer

    async def patch(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/json-patch+json"
        try:
            return self.store(jsonpatch.apply_patch(self.stored[request.match_info["name"]], await request.json()))
        except jsonpatch.JsonPatchTestFailed:
            return web.json_response({"message": "the test failed"}, status=422)

    def store(self, event: dict[str, Any]) -> web.Response:
        self.version += 1
        event["metadata"]["resourceVersion"] = str(self.version)
        self.stored[event["metadata"]["name"]] = event
        return web.json_response(event)


def told(events: Events, use: Callable[[Api], Awaitable[None]]) -> list[dict[str, Any]]:
    """The events after something was told to the API server that holds them."""

    async def run() -> None:
        app = web.Application()
        app.add_routes(events.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with ApiClient(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")) as client:
                await use(Api(client))
        finally:
            await runner.cleanup()

    asyncio.run(run())
    return list(events.stored.values())


def at(seconds: float, event: Event = STARTING) -> dict[str, Any]:
    cluster = SmallCluster()
    cluster.pass_time(seconds)
    return event_manifest(cluster.observed(), event)


def test_the_same_news_again_is_counted() -> None:
    async def use(api: Api) -> None:
        for seconds in (0, 60, 300):
            await tell(api, at(seconds))
        await tell(api, at(360, Event("Normal", "Running", "step 10")))

    starting, running = told(Events(), use)
    assert (starting["count"], starting["firstTimestamp"]) == (3, to_text(START))
    assert starting["lastTimestamp"] == to_text(START + timedelta(seconds=300))
    assert (running["reason"], running["count"]) == ("Running", 1)


def test_what_another_operator_counted_meanwhile_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()

    async def use(api: Api) -> None:
        async def meanwhile() -> None:
            await tell(api, at(61))

        await tell(api, at(0))
        events.after_get = meanwhile
        await tell(api, at(60))

    [starting] = told(events, use)
    assert (starting["count"], starting["lastTimestamp"]) == (2, to_text(START + timedelta(seconds=61)))
    assert not caplog.records


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture, status: int) -> None:
    events = Events()

    async def refused(_: web.Request) -> web.Response:
        return web.json_response({"message": "no events for you"}, status=status)

    events.create = refused  # type: ignore[method-assign]

    async def use(api: Api) -> None:
        await tell(api, at(0))

    assert told(events, use) == []
    assert "team/bot: no event: no events for you" in caplog.text


def test_an_answer_that_is_no_event_does_not_end_the_telling(caplog: pytest.LogCaptureFixture) -> None:
    """Nor the work on jobs beside it."""
    events, running = Events(), Event("Normal", "Running", "step 10")

    async def no_event(_: web.Request) -> web.Response:
        return web.json_response({})

    events.get = no_event  # type: ignore[method-assign]

    async def use(api: Api) -> None:
        news = News(api)
        for event in (at(0), at(60), at(120, running)):
            news.tell(event)
        telling = asyncio.create_task(news.run())
        while len(events.stored) < 2 and not telling.done():
            await asyncio.sleep(0.01)
        assert not telling.done(), telling.exception()
        telling.cancel()

    assert [event["reason"] for event in told(events, use)] == ["Starting", "Running"]
    assert "KeyError" in caplog.text
