"""What others see of the operator: /healthz for the kubelet, /metrics for Prometheus."""

from collections import Counter
from collections.abc import Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ytrain_api.status import DeviceSeconds
from ytrain_operator.cache import Cache, Key
from ytrain_operator.work_queue import WorkQueue

STUCK_SECONDS = 120.0
"""Jobs wait and none is taken from the queue for so long: whatever works on them does so no more.

How long each one waits is no sign of that: after a start there may be thousands.
"""

_LIVE = ("Pending", "Starting", "Running", "Saving")


class JobMetrics(Collector):
    """Jobs by phase, the queue, and the figures of each job that is alive; read from the cache when asked."""

    def __init__(self, cache: Cache, queue: WorkQueue[Key]) -> None:
        self._cache = cache
        self._queue = queue

    def collect(self) -> Iterable[Metric]:
        phases = Counter(record.phase for record in self._cache.jobs.values())
        jobs = GaugeMetricFamily("ytrain_jobs", "Jobs by phase.", labels=["phase"])
        for phase, count in sorted(phases.items()):
            jobs.add_metric([phase], count)
        yield jobs
        yield GaugeMetricFamily("ytrain_operator_queue_depth", "Jobs that wait to be looked at.", len(self._queue))
        names = ["namespace", "job"]
        step = GaugeMetricFamily("ytrain_job_step", "Optimizer steps done.", labels=names)
        loss = GaugeMetricFamily("ytrain_job_loss", "Latest training loss, nats per token.", labels=names)
        speed = GaugeMetricFamily("ytrain_job_tokens_per_second", "Tokens trained a second.", labels=names)
        spent = GaugeMetricFamily(
            "ytrain_job_device_seconds", "Device time by what it was spent on.", labels=[*names, "kind"]
        )
        for key, record in self._cache.jobs.items():
            if record.phase in _LIVE:
                for kind, seconds in zip(DeviceSeconds.model_fields, record.device_seconds, strict=False):
                    spent.add_metric([*key, kind], seconds)
                for gauge, value in zip((step, loss, speed), record.figures, strict=True):
                    if value is not None and record.phase != "Pending":  # one that waits has no speed, nor stands still
                        gauge.add_metric(list(key), value)
        yield from (step, loss, speed, spent)


async def serve(port: int, cache: Cache, queue: WorkQueue[Key]) -> tuple[web.AppRunner, int]:
    """Listen; returns what is to be cleaned up at the end, and the port."""
    metrics = JobMetrics(cache, queue)
    REGISTRY.register(metrics)

    async def health(_: web.Request) -> web.Response:
        stands = queue.stands()
        if stands > STUCK_SECONDS:
            return web.Response(status=500, text=f"jobs wait, and none was looked at for {stands:.0f} s\n")
        return web.Response(text="ok\n")

    async def prometheus(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", health)
    app.router.add_get("/metrics", prometheus)

    async def unregister(_: web.Application) -> None:
        REGISTRY.unregister(metrics)

    app.on_cleanup.append(unregister)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, port=port)
    await site.start()
    return runner, int(runner.addresses[0][1])
