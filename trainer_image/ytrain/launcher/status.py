"""What the coordinator knows, in the words of the job's status and of Prometheus."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ytrain.launcher.coordinator import PREEMPTED, Coordinator
from ytrain.report.series import duration
from ytrain_api.protocol import LastWord, LauncherStatus, RankProgress
from ytrain_api.status import Failure, Progress, Usage, WorkerCount

TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a container's termination message."""
FAILED_LOSE = ("evaluation", "data", "output", "checkpoint", "failure")
DONE_LOSE = ("failure", "data", "checkpoint", "evaluation")
"""What a last word that is too long does without, in this order; the operator has most of it from answers before."""
MESSAGE_CHARACTERS = 600
"""Of any script: a character takes up to six bytes in JSON."""


def launcher_status(coordinator: Coordinator, job: str) -> LauncherStatus:
    """The answer of `/v1/progress`."""
    outcome = coordinator.outcome
    if outcome is not None:
        state = {0: "Succeeded", PREEMPTED: "Preempted"}.get(outcome.exit_code, "Failed")
        message = outcome.message
    elif coordinator.running:
        of, absent = coordinator.rules.workers, coordinator.absent
        fewer = f"{of - absent} of {of} workers train" if absent else ""
        state, message = ("Stopping", coordinator.stopping) if coordinator.stopping else ("Running", fewer)
    else:
        state, message = "Waiting", coordinator.waiting_for()
    return LauncherStatus.model_validate(
        {
            "job": job,
            "state": state,
            "activity": coordinator.progress.activity if coordinator.progress else "",
            "message": message,
            "generation": coordinator.generation,
            "restarts": coordinator.restarts,
            "workers": WorkerCount(desired=coordinator.rules.workers, ready=len(coordinator.members)),
            "progress": _progress(coordinator.progress, ended=outcome is not None),
            "failure": _failure(coordinator),
            "usage": Usage(device_seconds=coordinator.device_time.seconds()),
            **coordinator.facts.told(),
            "exit_code": outcome.exit_code if outcome else None,
        }
    )


def fitted(word: LastWord) -> bytes:
    """The last word as JSON that Kubernetes shows whole: what is longest and least needed goes first."""
    for shorter in _shorter(word):
        text = shorter.model_dump_json(by_alias=True, exclude_none=True).encode()
        if len(text) <= TERMINATION_BYTES:
            break
    return text


def _shorter(word: LastWord) -> Iterator[LastWord]:
    """The word with less and less: of a failure its account stays, of a success what came of it."""
    yield word
    status = word.status
    if status is not None:
        if status.failure is not None:
            status = status.model_copy(update={"failure": status.failure.model_copy(update={"last_lines": []})})
            yield word.model_copy(update={"status": status})
        for name in FAILED_LOSE if word.exit_code else DONE_LOSE:
            status = status.model_copy(update={name: None})
            yield word.model_copy(update={"status": status})
    yield LastWord(exit_code=word.exit_code, message=word.message[:MESSAGE_CHARACTERS])


def _progress(latest: RankProgress | None, *, ended: bool) -> Progress | None:
    if latest is None:
        return None
    total = latest.total_steps
    percent = 100 * latest.step // total if total else None
    left = (total - latest.step) * latest.step_seconds if total and latest.step_seconds else None
    return Progress(
        step=latest.step,
        total_steps=total,
        epoch=latest.epoch,
        percent=percent,
        summary=_summary(latest, percent, ended),
        loss=round(latest.loss, 4) if latest.loss is not None else None,
        learning_rate=latest.learning_rate,
        tokens_per_second=round(latest.tokens_per_second) if latest.tokens_per_second is not None else None,
        eta=duration(left) if left is not None else None,
        updated_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _summary(latest: RankProgress, percent: int | None, ended: bool) -> str | None:
    """Steps, and what rank 0 does when it does not train: loading and evaluating may take longer than training."""
    steps = f"{percent}% ({latest.step}/{latest.total_steps})" if percent is not None else ""
    activity = "" if ended or (steps and latest.activity == "training") else latest.activity
    return ", ".join(filter(None, (steps, activity))) or None


def _failure(coordinator: Coordinator) -> Failure | None:
    ending = coordinator.failure
    if ending is None:
        return None
    end = ending.end
    return Failure(
        failure_class="Hang" if ending.hang else (end.kind if end else "LostWorker"),
        message=ending.message,
        rank=end.rank if end else None,
        exit_code=end.exit_code if end and end.exit_code >= 0 else None,
        signal=-end.exit_code if end and end.exit_code < 0 else None,
        last_lines=end.last_lines if end else [],
    )


class JobMetrics(Collector):
    """The job as Prometheus gauges, read from the coordinator whenever they are scraped."""

    def __init__(self, coordinator: Coordinator, job: str) -> None:
        self._coordinator = coordinator
        self._job = job
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """One gauge for each figure that is known."""
        coordinator = self._coordinator
        latest = coordinator.progress or RankProgress(activity="")
        figures: dict[str, tuple[str, float | None]] = {
            "ytrain_workers_desired": ("Worker pods asked for.", coordinator.rules.workers),
            "ytrain_workers_ready": ("Worker pods that have joined.", len(coordinator.members)),
            "ytrain_generation": ("Starts of the ranks so far.", coordinator.generation),
            "ytrain_restarts": ("Starts of the ranks after the first.", coordinator.restarts),
            "ytrain_running": ("Whether ranks run.", float(coordinator.running)),
            "ytrain_step": ("Optimizer steps done.", latest.step),
            "ytrain_total_steps": ("Optimizer steps planned.", latest.total_steps),
            "ytrain_loss": ("Latest training loss, nats per token.", latest.loss),
            "ytrain_learning_rate": ("Learning rate of the latest step.", latest.learning_rate),
            "ytrain_tokens_per_second": ("Tokens trained a second.", latest.tokens_per_second),
        }
        seconds = coordinator.device_time.seconds()
        spent = GaugeMetricFamily(
            "ytrain_device_seconds", "Device time by what it was spent on.", labels=["job", "kind"]
        )
        for kind in type(seconds).model_fields:
            spent.add_metric([self._job, kind], getattr(seconds, kind))
        yield spent
        for name, (words, value) in figures.items():
            if value is not None:
                gauge = GaugeMetricFamily(name, words, labels=["job"])
                gauge.add_metric([self._job], value)
                yield gauge
