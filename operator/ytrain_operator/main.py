"""`ytrain-operator [SETTINGS.yaml]`: reads its settings, waits for the Lease, watches, reconciles."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

import kopf

from ytrain_api.errors import SpecError
from ytrain_operator.cache import Cache, Key
from ytrain_operator.kube import Api, ApiError, connect
from ytrain_operator.launcher_answers import Ask
from ytrain_operator.launcher_client import LauncherClient
from ytrain_operator.leadership import lead
from ytrain_operator.monitoring import serve
from ytrain_operator.operator_key import operator_key
from ytrain_operator.reconciler import Reconciler
from ytrain_operator.resync import refresh, resync
from ytrain_operator.settings import Settings, load_settings
from ytrain_operator.watch import handlers, kopf_settings
from ytrain_operator.work_queue import WorkQueue

log = logging.getLogger("ytrain.operator")


DISCOVERY_SECONDS = 0.2
"""Between two looks whether a new CRD is discovered yet."""


class Operator:
    """One operator's parts, put together."""

    def __init__(self, api: Api, settings: Settings, ask: Ask) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        self._api = api
        self._settings = settings
        self._ask = ask

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Work until a signal, or `stop`, asks for the end.

        Raises:
            ApiError: the API server does not answer at the start, or does not allow what is needed.
            SpecError: it does not know YTrainJobs.
        """
        api, settings, cache, queue = self._api, self._settings, self.cache, self.queue
        key = await operator_key(api, settings.namespace)
        # Before anything is decided: a job whose pods are not known yet would seem to have none.
        for job in await self._listed():
            queue.add(job)
        while not await api.discovered(
            "YTrainJob"
        ):  # kopf looks there once, and would never watch what it did not find
            await asyncio.sleep(DISCOVERY_SECONDS)
        reconciler = Reconciler(api=api, cache=cache, queue=queue, settings=settings, key=key, ask=self._ask)
        watching = kopf.operator(
            registry=handlers(cache, queue, api.client.configuration),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            stop_flag=stop,
        )
        every = settings.resync_seconds
        # kopf's end waits for every task that came after its own begin, so it begins last.
        tasks = [
            asyncio.create_task(reconciler.run(), name="reconciler"),
            asyncio.create_task(
                resync(api, cache, queue, settings.namespaces, every, reconciler.forget), name="resync"
            ),
            asyncio.create_task(watching, name="watches"),
        ]
        log.info("watching %s", ", ".join(settings.namespaces) or "all namespaces")
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listed(self) -> set[Key]:
        try:
            return await refresh(self._api, self.cache, self._settings.namespaces)
        except ApiError as error:
            if error.status != 404:
                raise
            raise SpecError(
                "this cluster does not know YTrainJobs; install their CRD, with crds.install of the chart or "
                "`kubectl apply --server-side -f crds/ytrainjobs.ytrain.io.yaml`"
            ) from error


async def run(settings: Settings) -> bool:
    """The whole process; returns whether it ended as it was asked to."""
    client = await connect()
    async with client, LauncherClient() as launchers:
        operator = Operator(Api(client), settings, launchers.ask)
        runner, port = await serve(settings.metrics_port, operator.cache, operator.queue)
        log.info("metrics and health on port %d", port)
        try:
            if not settings.leader_election:
                await operator.run()
                return True
            identity = f"{socket.gethostname()}-{os.getpid()}"
            return await lead(client, settings.namespace, identity, operator.run)
        finally:
            await runner.cleanup()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ytrain-operator", description="Runs YTrainJobs on Kubernetes.")
    parser.add_argument("settings", nargs="?", type=Path, help="YAML file with the operator's settings")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("kopf.objects", "kopf.activities"):  # a line for every event
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = load_settings(given.settings) if given.settings else Settings()
        if not asyncio.run(run(settings)):
            sys.exit("the lease was lost to another operator, or could not be renewed; starting again waits for it")
    except (SpecError, ApiError) as error:
        sys.exit(f"ytrain-operator: {error}")


if __name__ == "__main__":
    main()
