"""Puts launcher and agents together: both in this process for `ytrain run --processes`, or each in one of its own.

What a job's ranks print and tell arrives here and goes to the display.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from ytrain.launcher import ranks
from ytrain.launcher.addresses import address_towards
from ytrain.launcher.agent import Agent, Worker
from ytrain.launcher.client import LauncherClient
from ytrain.launcher.coordinator import Coordinator, Outcome, Rules
from ytrain.launcher.desk import Desk
from ytrain.launcher.device_time import DeviceTime
from ytrain.launcher.server import application
from ytrain.launcher.status import fitted, launcher_status
from ytrain.methods.facts import facts_of_finished
from ytrain.methods.options import RunOptions
from ytrain.report.live import Progress
from ytrain.training.failure import record_failure
from ytrain.training.run_folder import RunFolder, run_identity
from ytrain_api import JobFile, config_digest, dump_job
from ytrain_api.errors import (
    DataError,
    Preempted,
    SpecError,
    TrainingError,
    TransientError,
    YTrainError,
)
from ytrain_api.protocol import LastWord, LauncherStatus, Spent
from ytrain_api.status import Usage, WorkerCount

TERMINATION_LOG = Path("/dev/termination-log")
"""Kubernetes shows what lies here as the container's last word."""

LEAVE_SECONDS = 10.0
"""How long a launcher stays after the end, so that every agent hears of it."""

RETRY_SECONDS = 1.0


def rules(job_file: JobFile, workers: int) -> Rules:
    """What the job says about its workers."""
    policy = job_file.job.spec.policy
    return Rules(
        job=identity(job_file),
        workers=workers,
        least=min(workers, job_file.job.spec.workers.min_replicas or workers),
        restarts=policy.restarts,
        hang_seconds=policy.hang_timeout.seconds,
        join_seconds=policy.pending_deadline.seconds if policy.pending_deadline else None,
    )


def identity(job_file: JobFile) -> str:
    """What tells a job from another one of the same name."""
    return job_file.job.metadata.uid or config_digest(job_file.job)


def run_here(job_file: JobFile, options: RunOptions, processes: int, progress: Progress) -> None:
    """Train with several ranks on this machine, and start them again when they fail.

    Raises:
        YTrainError: as `run_job` does.
    """
    ranks.warm_up()
    outcome = asyncio.run(_run_here(job_file, options, processes, progress))
    _conclude(outcome, job_file, options.folder.path)


async def _run_here(job_file: JobFile, options: RunOptions, processes: int, progress: Progress) -> Outcome:
    desk = Desk(_coordinator(rules(job_file, 1)), progress.note)
    worker = _worker(job_file, options, index=0, slots=processes, address="127.0.0.1")
    agent = Agent(worker, desk, heard=Listener(progress, several=processes > 1), tell=progress.note)
    _on_signals(agent.stop, progress.note)
    served = asyncio.create_task(agent.run())
    try:
        await asyncio.wait([served, asyncio.create_task(desk.run())], return_when=asyncio.FIRST_COMPLETED)
        await served
    finally:
        served.cancel()
    assert desk.coordinator.outcome is not None
    return desk.coordinator.outcome


def serve_launcher(
    job_file: JobFile,
    *,
    host: str | None,
    port: int,
    token: str,
    workdir: Path | None,
    spent: Spent,
    progress: Progress,
) -> None:
    """Coordinate workers on other machines until the job is over.

    SIGINT asks them to save and stop. SIGTERM ends this process alone: the ranks go on, and a launcher that is started
    again finds them.

    Args:
        host: the address to listen at; None is every one, of IPv4 and IPv6.
        spent: device time that is known of launchers before this one.

    Raises:
        YTrainError: how the job failed.
    """
    if workdir is not None and RunFolder(workdir).finished(config_digest(job_file.job)):
        progress.note(f"{workdir}: this job is done already")
        _leave(LastWord(exit_code=0, message="this job is done already", status=_done(job_file, workdir, spent)))
        return
    outcome, status = asyncio.run(_serve_launcher(job_file, host, port, token, spent, progress))
    _leave(LastWord(exit_code=outcome.exit_code, message=outcome.message, status=status))
    _conclude(outcome, job_file, workdir)


def _done(job_file: JobFile, workdir: Path, spent: Spent) -> LauncherStatus:
    """What the run folder of a job that is done tells of it."""
    return LauncherStatus(
        job=job_file.job.metadata.name,
        state="Succeeded",
        generation=0,
        restarts=0,
        workers=WorkerCount(),
        usage=Usage(device_seconds=DeviceTime(spent).seconds()),
        exit_code=0,
        **dict(facts_of_finished(RunFolder(workdir), job_file.job.spec)),
    )


def _leave(word: LastWord) -> None:
    """Write the termination message, where there is a place for it."""
    with suppress(OSError):
        if TERMINATION_LOG.is_file():
            TERMINATION_LOG.write_bytes(fitted(word))


async def _serve_launcher(
    job_file: JobFile, host: str | None, port: int, token: str, spent: Spent, progress: Progress
) -> tuple[Outcome, LauncherStatus]:
    desk = Desk(_coordinator(rules(job_file, job_file.job.spec.workers.replicas), spent), progress.note)
    runner = web.AppRunner(application(desk, job_file, token), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SpecError(
            f"--listen: port {port} of {host or 'every address'}: {error.strerror or error}; name a free port"
        ) from None
    progress.note(f"launcher of {job_file.job.metadata.name}: listening on port {port} of {host or 'every address'}")
    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, leaving.set)
    stopping: list[asyncio.Task[None]] = []
    loop.add_signal_handler(
        signal.SIGINT, lambda: stopping.append(asyncio.create_task(desk.stop("the launcher was interrupted")))
    )
    ended, left = asyncio.create_task(desk.run()), asyncio.create_task(leaving.wait())
    try:
        await asyncio.wait([ended, left], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise TransientError("the launcher was ended; the ranks go on, start it again to watch over them")
        await desk.all_left(within=LEAVE_SECONDS)
        return ended.result(), launcher_status(desk.coordinator, job_file.job.metadata.name)
    finally:
        for task in (ended, left):
            task.cancel()
        await runner.cleanup()


def serve_worker(
    *,
    url: str,
    token: str,
    index: int,
    slots: int | None,
    address: str | None,
    options: RunOptions,
    progress: Progress,
) -> None:
    """Run this machine's ranks as the launcher at `url` orders, until the job is over.

    Raises:
        YTrainError: how the job ended, if it is not done.
    """
    ranks.warm_up()
    exit_code = asyncio.run(_serve_worker(url, token, index, slots, address, options, progress))
    _raise(Outcome(exit_code, "the job is over; the launcher's log and result.json tell how it ended"))


async def _serve_worker(
    url: str, token: str, index: int, slots: int | None, address: str | None, options: RunOptions, progress: Progress
) -> int:
    async with LauncherClient(url, token) as client:
        job_file = await _fetched(client.job, progress)
        here = address or address_towards(url)
        worker = _worker(job_file, options, index=index, slots=slots or job_file.job.spec.workers.devices, address=here)
        agent = Agent(worker, client, heard=Listener(progress, several=True), tell=progress.note)
        _on_signals(agent.stop, progress.note)
        return await agent.run()


async def _fetched(ask: Callable[[], Coroutine[Any, Any, JobFile]], progress: Progress) -> JobFile:
    told = False
    while True:
        try:
            return await ask()
        except ConnectionError as error:
            if not told:
                progress.note(f"waiting for the launcher: {error}")
            told = True
            await asyncio.sleep(RETRY_SECONDS)


class Listener:
    """Shows what ranks tell: rank 0 as the run's progress, what any of them prints with its number."""

    def __init__(self, progress: Progress, *, several: bool) -> None:
        self._progress = progress
        self._several = several

    def __call__(self, rank: int, message: dict[str, Any]) -> None:
        if "output" in message:
            self._progress.note(f"[rank {rank}] {message['output']}" if self._several else message["output"])
        if rank != 0:
            return
        if "step" in message:
            self._progress.step(message["step"], message["total"])
        elif "activity" in message and "note" in message:
            self._progress.phase(message["activity"])
        elif "note" in message:
            self._progress.note(message["note"])


def _coordinator(job_rules: Rules, spent: Spent | None = None) -> Coordinator:
    return Coordinator(job_rules, now=time.monotonic(), device_time=DeviceTime(spent))


def _worker(job_file: JobFile, options: RunOptions, *, index: int, slots: int, address: str) -> Worker:
    return Worker(
        job=identity(job_file),
        job_file=job_file,
        index=index,
        slots=slots,
        address=address,
        options=options,
    )


def _on_signals(stop: Callable[[signal.Signals], None], tell: Callable[[str], None]) -> None:
    def handle(number: signal.Signals) -> None:
        tell(f"{number.name}: saving at the end of this step; once more ends at once without saving")
        stop(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handle, number)


def _conclude(outcome: Outcome, job_file: JobFile, workdir: Path | None) -> None:
    try:
        _raise(outcome)
    except YTrainError as error:
        if workdir is not None:
            folder, job = RunFolder(workdir), job_file.job
            if folder.unused():
                folder.open(run_identity(job), dump_job(job))
            # A folder that was refused may hold another job's run, or a user's own files.
            if folder.unfinished_run_of(job):
                record_failure(folder, job_file, error)
        raise


def _raise(outcome: Outcome) -> None:
    kinds: Sequence[type[YTrainError]] = (SpecError, DataError, TrainingError, TransientError, Preempted)
    for kind in kinds:
        if kind.exit_code == outcome.exit_code:
            raise kind(outcome.message)
    assert outcome.exit_code == 0, outcome
