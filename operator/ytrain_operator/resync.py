"""Lists everything at the start and from time to time, in case that a watch missed something while it was away."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter

from ytrain_operator.cache import Cache, Key
from ytrain_operator.kube import Api, ApiError
from ytrain_operator.watch import OUR_PODS
from ytrain_operator.work_queue import WorkQueue

log = logging.getLogger("ytrain.operator")

ENDED = ("Succeeded", "Failed")

FIRST_SECONDS = 30.0
"""What changed between the first list and the begin of the watches is found this soon."""

MISSED = Counter("ytrain_operator_watch_missed_total", "Deleted objects that a watch did not tell of.")


async def refresh(api: Api, cache: Cache, namespaces: list[str]) -> set[Key]:
    """Bring the cache up to date with lists of everything; returns the jobs about which there are news."""
    news: set[Key] = set()
    scopes: list[str | None] = [*namespaces] or [None]
    for namespace in scopes:
        uids, version, changed = await _listed(api, cache.put_job, "YTrainJob", namespace, None)
        gone = cache.keep_jobs(uids, version, namespace)
        news |= changed | gone
        MISSED.inc(len(gone))
        uids, version, changed = await _listed(api, cache.put_pod, "Pod", namespace, OUR_PODS)
        gone = cache.keep_pods(uids, version, namespace)
        news |= changed | gone
        MISSED.inc(len(gone))
    return news


async def _look(api: Api, cache: Cache, queue: WorkQueue[Key], namespaces: list[str]) -> None:
    """Refresh the cache and wake the jobs about which there are news, unless the API server has something against it.

    Then the watches go on, and the next time comes: a list that expired half-way must not end the operator.
    """
    try:
        news = await refresh(api, cache, namespaces)
    except ApiError as error:
        log.warning("not everything could be listed: %s; the watches go on", error)
        return
    for key in news:
        queue.add(key)


async def _listed(
    api: Api, put: Callable[[dict[str, Any]], Key | None], kind: str, namespace: str | None, labels: str | None
) -> tuple[set[str], int, set[Key]]:
    """Uids of what there is, the version of the list, and jobs about which it says something new."""
    uids: set[str] = set()
    news: set[Key] = set()
    version = 0
    async for items, at in api.pages(kind, namespace=namespace, labels=labels):
        version = at
        for item in items:
            uids.add(item["metadata"]["uid"])
            key = put(item)
            if key is not None:
                news.add(key)
    return uids, version, news


async def resync(
    api: Api, cache: Cache, queue: WorkQueue[Key], namespaces: list[str], every: float, before: Callable[[], None]
) -> None:
    """Refresh the cache and look at every job again from time to time, until cancelled.

    Args:
        before: called each time before every job is looked at.
    """
    await asyncio.sleep(min(FIRST_SECONDS, every))
    await _look(api, cache, queue, namespaces)
    while True:
        await asyncio.sleep(every)
        await _look(api, cache, queue, namespaces)
        before()
        for key, job in list(cache.jobs.items()):
            if job.phase not in ENDED or cache.pods(key):  # nothing of the others can have been missed
                queue.add(key)
