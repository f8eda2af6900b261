"""Lists everything at the start and from time to time, in case that a watch missed something while it was away."""

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter

from ytrain_operator.cache import Cache, Key
from ytrain_operator.kube import Api
from ytrain_operator.watch import OUR_PODS
from ytrain_operator.work_queue import WorkQueue

FIRST_SECONDS = 30.0
"""What changed between the first list and the begin of the watches is found this soon."""

MISSED = Counter("ytrain_operator_watch_missed_total", "Deleted objects that a watch did not tell of.")


async def refresh(api: Api, cache: Cache, namespaces: list[str]) -> None:
    """Bring the cache up to date with lists of everything."""
    missed: set[Key] = set()
    scopes: list[str | None] = [*namespaces] or [None]
    for namespace in scopes:
        jobs, version = await _listed(api, cache.put_job, "YTrainJob", namespace, None)
        missed |= cache.keep_jobs(jobs, version, namespace)
        pods, version = await _listed(api, cache.put_pod, "Pod", namespace, OUR_PODS)
        missed |= cache.keep_pods(pods, version, namespace)
    MISSED.inc(len(missed))


async def _listed(
    api: Api, put: Callable[[dict[str, Any]], object], kind: str, namespace: str | None, labels: str | None
) -> tuple[set[str], int]:
    """Uids of what there is, and the version of the list."""
    uids: set[str] = set()
    version = 0
    async for items, at in api.pages(kind, namespace=namespace, labels=labels):
        version = at
        for item in items:
            uids.add(item["metadata"]["uid"])
            put(item)
    return uids, version


async def resync(
    api: Api, cache: Cache, queue: WorkQueue[Key], namespaces: list[str], every: float, before: Callable[[], None]
) -> None:
    """Refresh the cache and look at every job again, until cancelled; `before` is called each time."""
    wait = min(FIRST_SECONDS, every)
    while True:
        await asyncio.sleep(wait)
        wait = every
        await refresh(api, cache, namespaces)
        before()
        for key in list(cache.jobs):
            queue.add(key)
