"""The whole status of a job, computed from what is observed and what was written before; there is one writer."""

from dataclasses import dataclass
from typing import Any

from ytrain_api.status import Failure, PodFailures, Status
from ytrain_operator.observed import Observed, Pod
from ytrain_operator.status.conditions import Finding, conditions, findings
from ytrain_operator.status.failure import explain_pod, explain_told
from ytrain_operator.status.outcome import outcome
from ytrain_operator.status.phase import phase, timing
from ytrain_operator.status.progress import facts, launcher_view, progress, usage, workers
from ytrain_operator.status.waiting import waiting
from ytrain_operator.timestamps import to_text


@dataclass(frozen=True)
class Problem:
    """What the API server refused."""

    reason: str
    message: str
    stalled: bool
    """Whether only a person can mend it."""


def status(
    observed: Observed,
    failures: PodFailures | None,
    failed: Pod | None = None,
) -> Status:
    """The status of a job that has not ended.

    Args:
        failures: of pods, those that are seen for the first time included.
        failed: the pod that is seen to have failed for the first time.
    """
    spec, before, now = observed.job.spec, observed.status, to_text(observed.now)
    is_now = phase(observed)
    desired = 0 if spec.suspend else spec.workers.replicas
    written = _with(
        before,
        **_figures(observed, is_now, failures),
        conditions=conditions(
            before.conditions,
            findings(is_now, ready=_ready(observed, is_now), failure=None),
            generation=observed.generation,
            now=observed.now,
        ),
        start_time=before.start_time or (None if spec.suspend else now),
        workers=workers(observed, desired),
        failure=_latest_failure(observed, failed),
    )
    # Device time passes while nothing happens: alone it is no reason to write.
    quiet = written == before and observed.last_word is None
    return written if quiet else _with(written, usage=usage(observed))


def ended_status(observed: Observed, failure: Failure | None, failures: PodFailures | None) -> Status:
    """The last status: how the job ended."""
    is_now = "Failed" if failure else "Succeeded"
    figures = _figures(observed, is_now, failures)
    ready = (True, "Succeeded", outcome(_with(observed.status, **figures)))
    failed = (failure.failure_class or "Failed", _sentence(failure)) if failure else None
    return _with(
        observed.status,
        **figures,
        usage=usage(observed),
        conditions=conditions(
            observed.status.conditions,
            findings(is_now, ready=ready, failure=failed),
            generation=observed.generation,
            now=observed.now,
        ),
        completion_time=to_text(observed.now),
        workers=workers(observed, 0),
        failure=failure or observed.status.failure,
    )


def acknowledged(observed: Observed) -> Status:
    """The status of a job that has ended; of what is edited afterwards it says that it was seen.

    GitOps tools (kstatus) take an object whose newest generation nobody has observed for one in progress.
    """
    said = [each.model_copy(update={"observed_generation": observed.generation}) for each in observed.status.conditions]
    return _with(observed.status, observed_generation=observed.generation, conditions=said)


def with_problem(written: Status, observed: Observed, problem: Problem) -> Status:
    """The status of a job whose plan the API server refused in part."""
    said = (problem.reason, problem.message)
    ready = Finding("Ready", False, *said)
    stalled = Finding("Stalled", True, *said) if problem.stalled else None
    changed = {finding.type: finding for finding in (ready, stalled) if finding}
    findings_ = [
        changed.get(each.type, Finding(each.type, each.status == "True", each.reason, each.message))
        for each in written.conditions
    ]
    return _with(
        written,
        conditions=conditions(observed.status.conditions, findings_, generation=observed.generation, now=observed.now),
    )


def _figures(observed: Observed, is_now: Any, failures: PodFailures | None) -> dict[str, Any]:
    before, view = observed.status, launcher_view(observed)
    return {
        "observed_generation": observed.generation,
        "phase": is_now,
        "phase_since": before.phase_since if before.phase == is_now else to_text(observed.now),
        "timing": timing(before, is_now, observed.now),
        "method": observed.job.spec.method,
        "progress": progress(observed),
        "attempt": max(before.attempt or 0, view.generation) if view else before.attempt,
        "restarts": max(before.restarts or 0, view.restarts) if view else before.restarts or 0,
        "pod_failures": failures,
        **facts(observed),
    }


def _with(before: Status, **changes: Any) -> Status:
    return before.model_copy(update=changes)


def _ready(observed: Observed, is_now: str) -> tuple[bool, str, str]:
    """Whether the job is accepted and placed, a reason and a message."""
    if is_now == "Suspended":
        return True, "Suspended", f"suspend is true and no pod runs; {_restorable(observed)}"
    if observed.job.spec.suspend:
        return True, "Stopping", "suspend is true: the workers save and end"
    if observed.concluding:
        return True, "Ending", "the launcher knows how the job ended, and the workers leave"
    wait = waiting(observed)
    wanted, running = observed.job.spec.workers.replicas, observed.running_workers
    if is_now in ("Running", "Saving") and observed.least_workers <= running < wanted:
        others = wait.text if wait else "the others are being made"
        return True, "FewerWorkers", f"{running} of {wanted} workers run, which minReplicas allows; {others}"
    if wait is not None:
        return False, wait.reason, wait.text
    if running < wanted or observed.launcher is None:
        return False, "PodsStarting", f"{running} of {wanted} workers run; the others are being made"
    return True, "PodsRunning", f"the launcher and {wanted} {'worker' if wanted == 1 else 'workers'} run"


def _restorable(observed: Observed) -> str:
    if observed.step and observed.job.spec.storage is None:
        return "the job has no storage, so its checkpoints went with its pod, and it will begin with the base model"
    if observed.step:
        return f"set it to false to go on from the checkpoint (step {observed.step} was done)"
    return "no step is done yet, so it will begin with the base model"


def _latest_failure(observed: Observed, failed: Pod | None) -> Failure | None:
    """Of a pod that failed just now, else what the launcher tells, else what was written before."""
    if failed is not None:
        return explain_pod(observed, failed)
    view = launcher_view(observed)
    told = view.failure if view else None
    return explain_told(observed, told) if told else observed.status.failure


def _sentence(failure: Failure) -> str:
    message = (failure.message or "").rstrip(".")
    return f"{message}. {failure.hint}" if failure.hint else message
