"""The launcher's HTTP side: agents exchange reports for orders, the operator and Prometheus read how far the job is.

Every request carries the job's token, except the health probe. What is malformed, too large or too frequent is refused
before it reaches the coordinator.
"""

import base64
import hmac
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from ytrain.launcher.coordinator import Refused
from ytrain.launcher.desk import Desk
from ytrain.launcher.status import JobMetrics, launcher_status
from ytrain_api import JobFile
from ytrain_api.protocol import Report, SharedJob

MOST_BYTES = 2 << 20
"""Of a request: 64 ranks with their last lines fit."""

PEER_RATE, PEER_BURST = 50.0, 100.0
"""Requests a second from one address, and how many may come at once; an agent needs a few."""

MOST_PEERS = 10_000
"""Addresses whose rate is remembered."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(desk: Desk, job_file: JobFile, token: str) -> web.Application:
    """The routes: `POST /v1/exchange`, `GET /v1/job`, `/v1/progress`, `/metrics` and, open to all, `/healthz`."""
    metrics = JobMetrics(desk.coordinator, job_file.job.metadata.name)

    async def exchange(request: web.Request) -> web.Response:
        try:
            report = Report.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"not a report: {error.error_count()} errors\n{error}") from None
        try:
            order = await desk.exchange(report)
        except Refused as refused:
            return web.Response(status=410 if refused.final else 409, text=str(refused))
        return web.json_response(text=order.model_dump_json(by_alias=True))

    async def job(_: web.Request) -> web.Response:
        maps = {
            name: {key: base64.b64encode(value).decode() for key, value in contents.items()}
            for name, contents in job_file.config_maps.items()
        }
        document = job_file.job.model_dump(mode="json", by_alias=True, exclude_none=True)
        shared = SharedJob(job=document, config_maps=maps)
        return web.json_response(text=shared.model_dump_json(by_alias=True))

    async def progress(_: web.Request) -> web.Response:
        status = launcher_status(desk.coordinator, job_file.job.metadata.name)
        return web.json_response(text=status.model_dump_json(by_alias=True, exclude_none=True))

    async def prometheus(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=MOST_BYTES, middlewares=[_limited(), _authenticated(token)])
    app.router.add_post("/v1/exchange", exchange)
    app.router.add_get("/v1/job", job)
    app.router.add_get("/v1/progress", progress)
    app.router.add_get("/metrics", prometheus)
    app.router.add_get("/healthz", health)
    return app


def _authenticated(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if request.path != "/healthz" and not hmac.compare_digest(given, expected):
            raise web.HTTPUnauthorized(text="give the job's token: Authorization: Bearer ...")
        return await handler(request)

    return check


def _limited() -> Middleware:
    """A bucket of requests for each address, filled at a steady rate."""
    buckets: dict[str, tuple[float, float]] = {}  # address -> (requests left, when)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        now, peer = time.monotonic(), request.remote or ""
        left, before = buckets.pop(peer, (PEER_BURST, now))
        left = min(PEER_BURST, left + (now - before) * PEER_RATE)
        buckets[peer] = (max(0.0, left - 1.0), now)
        if len(buckets) > MOST_PEERS:
            del buckets[next(iter(buckets))]  # the one that was silent longest
        if left < 1.0:
            raise web.HTTPTooManyRequests(headers={"Retry-After": "1"}, text="too many requests from this address")
        return await handler(request)

    return check
