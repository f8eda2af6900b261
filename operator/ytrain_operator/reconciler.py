"""Brings one job after the other to where it should be: observe, plan, carry out, write the status once.

Every step can be repeated: children are applied under names that follow from the job, deletions name a uid, the status
is computed whole. So it does not matter after which of them this process dies, or whether two of it are alive.
"""

import asyncio
import hashlib
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter, Histogram
from pydantic import ValidationError

from ytrain_api.protocol import LauncherStatus
from ytrain_api.status import Status
from ytrain_operator.cache import Cache, JobRecord, Key
from ytrain_operator.kube import Api, ApiError
from ytrain_operator.launcher_answers import Ask, LauncherAnswers
from ytrain_operator.manifests.event import event_manifest
from ytrain_operator.manifests.ownership import Manifest
from ytrain_operator.manifests.secret import token
from ytrain_operator.observed import Observed, observed_job
from ytrain_operator.planner.decide import decide
from ytrain_operator.planner.plan import Deletion, Plan
from ytrain_operator.settings import Settings
from ytrain_operator.status.refusal import named, unknown_spec
from ytrain_operator.status.summary import Problem, with_problem
from ytrain_operator.work_queue import WorkQueue

log = logging.getLogger("ytrain.operator")

AT_ONCE = 16
"""Pods of one job that are made at the same time."""

REFUSED_SECONDS = 30.0
"""Until something that the API server refused is tried again."""

SECONDS = Histogram("ytrain_operator_reconcile_seconds", "Duration of reconciling one job.")
WAITED = Histogram("ytrain_operator_queue_seconds", "Time that a job waited in the queue.")
ERRORS = Counter("ytrain_operator_reconcile_errors_total", "Reconciliations that failed.", ["kind"])


class Reconciler:
    """Works on the keys of a queue."""

    def __init__(
        self, *, api: Api, cache: Cache, queue: WorkQueue[Key], settings: Settings, key: bytes, ask: Ask
    ) -> None:
        self._api = api
        self._cache = cache
        self._queue = queue
        self._settings = settings
        self._key = key
        self._answers = LauncherAnswers(ask, queue)
        self._applied: dict[str, dict[tuple[str, str], bytes]] = {}
        """Digests of what was applied, by the job's uid: children that nobody watches."""

    async def run(self) -> None:
        """Work, several keys at a time, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.workers):
                group.create_task(self._work())

    def forget(self) -> None:
        """Apply every child again when its job is next looked at: somebody may have deleted one."""
        self._applied.clear()
        self._answers.forget()

    async def _work(self) -> None:
        while True:
            key, waited = await self._queue.get()
            WAITED.observe(waited)
            try:
                with SECONDS.time():
                    again_after = await self.reconcile(key)
            except ApiError as error:
                ERRORS.labels("api").inc()
                log.warning("%s/%s: %s; trying again", *key, error)
                self._queue.failed(key)
            except Exception:
                ERRORS.labels("bug").inc()
                log.exception("%s/%s: cannot be reconciled", *key)
                self._queue.failed(key)
            else:
                self._queue.done(key, again_after)

    async def reconcile(self, key: Key) -> float | None:
        """Do what a job needs now; returns in how many seconds it should be looked at again.

        Raises:
            ApiError: the API server does not answer, or has something against it that passes.
        """
        record = self._cache.jobs.get(key)
        if record is None:
            return None
        raw, now = record.unpacked(), datetime.now(UTC)
        try:
            observed = observed_job(raw, now, self._cache.pods(key))
        except ValidationError as error:
            await self._write(raw, unknown_spec(raw, error, now), raw.get("status", {}))
            return None
        observed = replace(observed, launcher_status=await self._launcher_status(key, observed))
        plan = decide(observed, self._settings, self._key)
        return await self._carry_out(plan, observed, raw, record)

    async def _launcher_status(self, key: Key, observed: Observed) -> LauncherStatus | None:
        launcher = observed.launcher
        if observed.finished or launcher is None or not launcher.running or launcher.address is None:
            return None
        # Workers leave when their launcher says so: only a fresh word tells whether that is why one ended.
        fresh = any(pod.ended is not None for pod in observed.workers)
        return await self._answers.latest(key, launcher, token(self._key, observed.uid), fresh=fresh)

    async def _carry_out(self, plan: Plan, observed: Observed, raw: dict[str, Any], record: JobRecord) -> float | None:
        problem = await self._apply(plan.apply, observed)
        again_after = plan.again_after
        if plan.status is not None:
            status = with_problem(plan.status, observed, problem) if problem else plan.status
            if status != observed.status:
                await self._write(raw, _dumped(status), raw.get("status", {}))
            for event in plan.events:  # after the status that they follow from: they are told once, or not at all
                await self._tell(observed, event_manifest(observed, event))
        for deletion in plan.delete:
            await self._delete(observed, deletion)
        if plan.delete_job:
            await self._api.delete("YTrainJob", observed.namespace, observed.name, record.uid)
        if observed.finished:
            self._applied.pop(observed.uid, None)
        return min(again_after or REFUSED_SECONDS, REFUSED_SECONDS) if problem else again_after

    async def _apply(self, manifests: tuple[Manifest, ...], observed: Observed) -> Problem | None:
        """Apply in order, pods side by side; returns what the API server refused."""
        pods = [manifest for manifest in manifests if manifest["kind"] == "Pod"]
        try:
            for manifest in manifests:
                if manifest["kind"] != "Pod":
                    await self._apply_once(manifest, observed)
            for first in range(0, len(pods), AT_ONCE):
                answers = await asyncio.gather(
                    *map(self._api.apply, pods[first : first + AT_ONCE]), return_exceptions=True
                )
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
                    self._cache.put_pod(answer)
        except ApiError as error:
            if error.passing:
                raise
            return named(error.status, str(error))
        return None

    async def _apply_once(self, manifest: Manifest, observed: Observed) -> None:
        """Apply a child unless it was applied like this before."""
        applied = self._applied.setdefault(observed.uid, {})
        name = (manifest["kind"], manifest["metadata"]["name"])
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).digest()
        if applied.get(name) != digest:
            await self._api.apply(manifest)
            applied[name] = digest

    async def _write(self, raw: dict[str, Any], status: dict[str, Any], before: dict[str, Any]) -> None:
        if status == before:
            return
        try:
            self._cache.put_job(await self._api.apply_status(raw, status))
        except ApiError as error:
            if error.status != 404:  # the job is gone; so will be everything of it
                raise

    async def _delete(self, observed: Observed, deletion: Deletion) -> None:
        left = await self._api.delete("Pod", observed.namespace, deletion.name, deletion.uid, at_once=deletion.at_once)
        if left is not None:
            self._cache.put_pod(left)

    async def _tell(self, observed: Observed, event: Manifest) -> None:
        """An event is a courtesy: without it the job goes on."""
        try:
            await self._api.apply(event)
        except ApiError as error:
            log.warning("%s/%s: no event: %s", observed.namespace, observed.name, error)


def _dumped(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
