"""What the operator takes from a launcher, in whose pod anything may run."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from ytrain_api.protocol import PORT, LauncherStatus
from ytrain_operator import launcher_client
from ytrain_operator.launcher_client import MOST_BYTES, LauncherClient

pytestmark = pytest.mark.unit

ADDRESS = f"127.80.{os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"
"""Of this process alone: the port is every launcher's."""

TOLD = b'{"job": "bot", "state": "Running", "generation": 1, "restarts": 0, "workers": {"desired": 1, "ready": 1}}'
NEWER = TOLD[:-1] + b', "novelty": {"a": 1}}'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def asked(answer: Handler) -> LauncherStatus | None:
    async def run() -> LauncherStatus | None:
        app = web.Application()
        app.router.add_get("/v1/progress", answer)
        app.router.add_get("/elsewhere", says(TOLD))
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, ADDRESS, PORT).start()
        try:
            async with LauncherClient() as client:
                return await client.ask(ADDRESS, "token")
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def says(body: bytes) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    return answer


@pytest.mark.parametrize("body", [TOLD, NEWER])
def test_an_answer_of_this_or_of_a_newer_trainer(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_client, "SECONDS", 60.0)  # this machine may be busy
    told = asked(says(body))
    assert told is not None
    assert told.state == "Running"


def test_an_answer_without_end_is_left() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(MOST_BYTES))
            sent += MOST_BYTES

    assert asked(endless) is None
    assert sent < 64 * MOST_BYTES, "what the connection's buffers hold, not what three seconds do"


def test_a_launcher_leads_nowhere_else() -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    assert asked(elsewhere) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff\xfe", b"{}"])
def test_what_is_no_answer(body: bytes) -> None:
    assert asked(says(body)) is None
