"""An HTTP endpoint as reward, against a server that answers as it is told."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from job_rewards import opened, sample

from ytrain.rl.rewards import Failure
from ytrain.rl.rewards.http_endpoint import HttpScorer

pytestmark = pytest.mark.unit


@dataclass
class Endpoint:
    """Answers with the status and body that the sample's answer names."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    busy: int = 0
    together: threading.Barrier | None = None
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(request)
            status, body = json.loads(request["answer"])
            if state.together is not None:
                state.together.wait(60)
            if state.busy:
                state.busy -= 1
                status = 503
            if body == "hang":
                state.over.wait(600)
                return
            if body == "close":
                return
            if body == "half":
                self.send_response(status)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b'{"reward": 1')
                return
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # all connect at once

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/score"
        yield state
        state.over.set()
        server.shutdown()
        thread.join()


NO_NUMBER = "the endpoint's answer has no number as reward"
CASES = [
    ((200, '{"reward": 0.5}'), 0.5),
    ((200, '{"reward": 1, "more": []}'), 1.0),
    ((200, '{"reward": null}'), NO_NUMBER),
    ((200, '{"reward": "1"}'), NO_NUMBER),
    ((200, '{"reward": [1]}'), NO_NUMBER),
    ((200, "{}"), NO_NUMBER),
    ((200, "1"), NO_NUMBER),
    ((200, '{"reward": NaN}'), "the endpoint's reward is nan, and not a finite number"),
    ((200, '{"reward": 1e999}'), "the endpoint's reward is inf, and not a finite number"),
    ((200, '{"reward": -1e13}'), "the endpoint's reward is -1e+13, beyond the 1e+12 that can be learned from"),
    ((200, '{"reward": 1' + 400 * "0" + "}"), "the endpoint's answer is no JSON with a finite reward"),
    ((200, "oops"), "the endpoint's answer is no JSON with a finite reward"),
    ((200, "[" * 60_000), "the endpoint's answer is no JSON with a finite reward"),
    ((200, "x" * 100_000), "the endpoint answered more than 65536 bytes"),
    ((500, "broken"), "the endpoint answered 500"),
    ((302, ""), "the endpoint answered 302"),
    ((200, "close"), "the endpoint broke off (ServerDisconnectedError)"),
    ((200, "half"), "the endpoint broke off (ClientPayloadError)"),
]


def test_what_an_endpoint_may_answer(endpoint: Endpoint, tmp_path: Path) -> None:
    with opened({"http": {"url": endpoint.url, "timeout": "60s"}}, tmp_path) as service:
        results = service.score([sample(json.dumps(answer), {"id": 7}) for answer, _ in CASES])
    told = [result.reason if isinstance(result, Failure) else result for result in results]
    assert told == [expected for _, expected in CASES]
    assert len(endpoint.asked) == len(CASES)  # nothing that may have been scored was asked again
    assert endpoint.asked[0] | {"answer": ""} == {"prompt": "2 + 2 =", "answer": "", "record": {"id": 7}}


def test_a_redirect_is_told_with_its_goal(endpoint: Endpoint, tmp_path: Path) -> None:
    with opened({"http": {"url": endpoint.url}}, tmp_path) as service:
        (failure,) = service.score([sample(json.dumps((302, "")))])
    assert isinstance(failure, Failure) and failure.detail == "redirects are not followed: /elsewhere"


def test_an_endpoint_that_hangs_costs_its_own_sample(endpoint: Endpoint, tmp_path: Path) -> None:
    with opened({"http": {"url": endpoint.url, "timeout": "3s"}}, tmp_path) as service:
        late, good = service.score([sample(json.dumps((200, body))) for body in ("hang", '{"reward": 0.5}')])
    assert isinstance(late, Failure) and late.reason == "the endpoint took longer than 3 s"
    assert good == 0.5


def test_some_requests_are_in_flight_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.together = threading.Barrier(8)
    with opened({"http": {"url": endpoint.url}}, tmp_path) as service:
        assert service.score([sample(json.dumps((200, '{"reward": 2}')))] * 8) == [2.0] * 8


@pytest.mark.parametrize(("busy", "expected"), [(2, 1.0), (3, Failure("the endpoint answered 503"))])
def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint, busy: int, expected: float | Failure) -> None:
    endpoint.busy = busy

    async def scored() -> float | Failure:
        scorer = HttpScorer(endpoint.url, 10.0, waits=(0.0, 0.0))
        try:
            return await scorer.score(sample(json.dumps((200, '{"reward": 1}'))))
        finally:
            await scorer.close()

    assert asyncio.run(scored()) == expected
    assert len(endpoint.asked) == 3


def test_an_endpoint_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening

        async def scored() -> float | Failure:
            scorer = HttpScorer(f"http://127.0.0.1:{unused.getsockname()[1]}", 10.0, waits=(0.0,))
            try:
                return await scorer.score(sample("4"))
            finally:
                await scorer.close()

        failure = asyncio.run(scored())
        assert isinstance(failure, Failure) and failure.reason == "the endpoint cannot be reached"
        assert f"127.0.0.1:{unused.getsockname()[1]}" in failure.detail
