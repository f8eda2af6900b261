"""Tells the API server what happened to jobs, as events: beside the work on them, which never waits for it."""

import asyncio
import logging

from ytrain_operator.kube import Api, ApiError
from ytrain_operator.manifests.event import repetition
from ytrain_operator.manifests.ownership import Manifest

log = logging.getLogger("ytrain.operator")

MOST_WAITING = 10_000
"""Events; what comes beyond is not told."""


class News:
    """Events that wait to be told, one after the other. Those that still wait when this process ends are not told."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: asyncio.Queue[Manifest] = asyncio.Queue(MOST_WAITING)

    def tell(self, event: Manifest) -> None:
        """Have an event told when its turn comes."""
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            _untold(event, "too many wait")

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            event = await self._waiting.get()
            try:
                await tell(self._api, event)
            except Exception:  # such as an answer that is no event: it must not end the work on jobs
                log.exception("an event cannot be told")


async def tell(api: Api, event: Manifest) -> None:
    """Make an event, or count it once more if it was told before. It is a courtesy: without it the job goes on."""
    name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
    try:
        try:
            await api.create(event)
        except ApiError as error:
            if error.status != 409:
                raise
            told = await api.get("Event", namespace, name)
            await api.patch("Event", namespace, name, repetition(told, event))
    except ApiError as error:
        _untold(event, error)


def _untold(event: Manifest, why: object) -> None:
    log.warning("%s/%s: no event: %s", event["metadata"]["namespace"], event["involvedObject"]["name"], why)
