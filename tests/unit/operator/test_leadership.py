"""The Lease while the API server is silent: its connection stands and no answer comes."""

import asyncio

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from ytrain_operator import leadership

pytestmark = pytest.mark.unit


def test_a_leader_whose_api_server_is_silent_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "ANSWER_SECONDS", 0.05)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ApiClient(Configuration(host=host)) as client, asyncio.timeout(60):
            lock = leadership._PatientLock(leadership.LEASE, "team", "me", client)
            held, error = await lock.get(leadership.LEASE, "team")
            assert (held, error.reason) == (False, "no answer (TimeoutError)")
        server.close()

    asyncio.run(run())
