"""Brings one job after the other to where it should be: observe, plan, carry out, write the status once.

Every step can be repeated: children are made under names that follow from the job, deletions name a uid, the status
is computed whole. So it does not matter after which of them this process dies, or whether two of it are alive.
"""

import asyncio
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
from ytrain_operator.launcher_answers import Ask, Launcher, LauncherAnswers
from ytrain_operator.manifests.event import event_manifest
from ytrain_operator.manifests.ownership import Manifest
from ytrain_operator.manifests.secret import token
from ytrain_operator.manifests.work_claim import serves
from ytrain_operator.news import News
from ytrain_operator.observed import Observed, observed_job
from ytrain_operator.planner.decide import decide
from ytrain_operator.planner.plan import Deletion, Plan
from ytrain_operator.planner.polling import poll_every
from ytrain_operator.planner.queued import releases
from ytrain_operator.settings import Settings
from ytrain_operator.status.events import events
from ytrain_operator.status.refusal import lasting, named, unknown_spec
from ytrain_operator.status.summary import Problem, with_problem
from ytrain_operator.work_queue import WorkQueue

log = logging.getLogger("ytrain.operator")

AT_ONCE = 16
"""Pods of one job that are made at the same time."""

SOON_SECONDS = 0.1
"""Until a job is looked at again of which something was changed: more may follow from it, or a deadline have begun."""

PATIENT = 4
"""Tries in a row after which it is told what the API server has against a child, though it may pass: about 8 s."""

REFUSED_SECONDS = 30.0
"""Until something that the API server refused is tried again."""

SECONDS = Histogram("ytrain_operator_reconcile_seconds", "Duration of reconciling one job.")
WAITED = Histogram(
    "ytrain_operator_queue_seconds",
    "Time that a job waited in the queue.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 180, 600),  # beyond the 10 s of the chart's alert
)
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
        self._news = News(api)
        self._surrounded: dict[Key, tuple[str, int]] = {}
        """Uid and generation of jobs whose surroundings were applied: nobody watches those."""

    async def run(self) -> None:
        """Work, several keys at a time, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._news.run())
                for _ in range(self._settings.workers):
                    group.create_task(self._work())
        finally:
            self._answers.leave_all()

    def forget(self) -> None:
        """Apply every child again when its job is next looked at: somebody may have deleted one."""
        self._surrounded.clear()

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
        ended = record is None or record.phase in ("Succeeded", "Failed")
        for release in releases(self._cache.pods(key), ended=ended):
            await self._api.patch("Pod", key.namespace, release.name, release.patch)
        if record is None:
            self._answers.leave(key)
            self._surrounded.pop(key, None)
            return None
        raw, now = record.unpacked(), datetime.now(UTC)
        try:
            observed = observed_job(raw, now, self._cache.pods(key))
        except ValidationError as error:
            await self._write(raw, unknown_spec(raw, error, now), raw.get("status", {}))
            return None
        observed = replace(
            observed,
            launcher_status=await self._launcher_status(key, observed),
            surrounded=self._surrounded.get(key) == (observed.uid, observed.generation),
        )
        plan = decide(observed, self._settings, self._key)
        return await self._carry_out(plan, observed, raw, record)

    async def _launcher_status(self, key: Key, observed: Observed) -> LauncherStatus | None:
        launcher = observed.launcher
        if observed.finished or launcher is None or not launcher.running or launcher.address is None:
            self._answers.leave(key)
            return None
        asked = Launcher(launcher.uid, launcher.address, token(self._key, observed.uid))
        answer = self._answers.follow(key, asked, poll_every(observed))
        # Workers leave when their launcher says so: only a fresh word tells whether that is why one ended.
        if any(pod.ended is not None for pod in observed.workers):
            return await self._answers.fresh(key)
        # A job that has not begun is told of once, with what its launcher says, rather than without it and with it.
        return await self._answers.first(key) if observed.status.phase in (None, "Pending") else answer

    async def _carry_out(self, plan: Plan, observed: Observed, raw: dict[str, Any], record: JobRecord) -> float | None:
        problem = await self._apply(plan, observed)
        changed = bool(plan.pods or plan.delete)
        # The first status waits for what becomes of the pods that were made just now: one write says more than two.
        untold = observed.status.phase is None and bool(plan.pods) and problem is None
        if plan.status is not None and not untold:
            status = with_problem(plan.status, observed, problem) if problem else plan.status
            if status != observed.status:
                changed |= await self._write(raw, _dumped(status), raw.get("status", {}))
            told = events(observed, status) if problem else plan.events
            for event in told:  # after the status that they follow from: they are told once, or not at all
                self._news.tell(event_manifest(observed, event))
        for deletion in plan.delete:
            await self._delete(observed, deletion)
        if plan.delete_job:
            await self._api.delete("YTrainJob", observed.namespace, observed.name, record.uid)
        soonest = REFUSED_SECONDS if problem else SOON_SECONDS if changed else None
        return min((wait for wait in (plan.again_after, soonest) if wait is not None), default=None)

    async def _apply(self, plan: Plan, observed: Observed) -> Problem | None:
        """Make the surroundings in order, then pods side by side; returns what the API server refused."""
        try:
            for manifest in plan.surroundings:
                await self._surround(observed, manifest)
            if plan.surroundings:
                self._surrounded[Key(observed.namespace, observed.name)] = (observed.uid, observed.generation)
            for first in range(0, len(plan.pods), AT_ONCE):
                making = map(self._api.make, plan.pods[first : first + AT_ONCE])
                for answer in await asyncio.gather(*making, return_exceptions=True):
                    if isinstance(answer, BaseException):
                        raise answer
                    self._cache.put_pod(answer)
        except ApiError as error:
            if not error.passing:
                return named(error.status, str(error))
            if error.status is None or self._queue.failures(Key(observed.namespace, observed.name)) < PATIENT:
                raise
            return lasting(error.status, str(error))
        return None

    async def _surround(self, observed: Observed, manifest: Manifest) -> None:
        surround = self._api.make if observed.status.phase is None else self._api.apply
        try:
            made = await surround(manifest)
        except ApiError as error:
            if error.status == 422 and manifest["kind"] == "PersistentVolumeClaim" and serves(manifest, str(error)):
                return
            raise
        if "deletionTimestamp" in made["metadata"] and not observed.own:
            # Such as a claim that pods of a former job use: once they are gone it would be missing.
            raise ApiError(409, f"{manifest['kind']} {manifest['metadata']['name']} is still being deleted")

    async def _write(self, raw: dict[str, Any], status: dict[str, Any], before: dict[str, Any]) -> bool:
        """Write the status unless it is as it was; returns whether it was written."""
        if status == before:
            return False
        try:
            self._cache.put_job(await self._api.replace_status(raw, status))
        except ApiError as error:
            if error.status != 404:  # the job is gone; so will be everything of it
                raise
        return True

    async def _delete(self, observed: Observed, deletion: Deletion) -> None:
        left = await self._api.delete("Pod", observed.namespace, deletion.name, deletion.uid, at_once=deletion.at_once)
        if left is not None:
            self._cache.put_pod(left)


def _dumped(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
