"""Whether the job has ended, and how. Decided once: what is written down afterwards is never asked again."""

from dataclasses import dataclass

from ytrain_api.errors import Preempted
from ytrain_api.status import Failure, PodFailures
from ytrain_operator.observed import Observed, Pod
from ytrain_operator.planner.deadline import overdue
from ytrain_operator.planner.restart import PERMANENT, failed_pods
from ytrain_operator.status.failure import explain_launcher, explain_pod, explain_wait


@dataclass(frozen=True)
class Verdict:
    """How the job ended."""

    failure: Failure | None = None
    """None: it is done."""


def verdict(observed: Observed, failures: PodFailures | None) -> Verdict | None:
    """None: the job goes on.

    Args:
        failures: of pods, those that are seen for the first time included.
    """
    return _by_launcher(observed) or _by_workers(observed, failures) or _by_deadline(observed)


def _by_launcher(observed: Observed) -> Verdict | None:
    launcher, word = observed.launcher, observed.last_word
    if launcher is None or launcher.ended is None:
        return None
    if word is None:
        # It ended without deciding anything; a wrong command line or job file would only be wrong again.
        return _failed(explain_pod(observed, launcher)) if launcher.ended.exit_code in PERMANENT else None
    if word.exit_code == Preempted.exit_code:
        return None
    if word.exit_code == 0:
        return Verdict()
    return _failed(explain_launcher(observed, word))


def _by_workers(observed: Observed, failures: PodFailures | None) -> Verdict | None:
    if observed.concluding or observed.last_word is not None:
        return None
    ended = [pod for pod in observed.workers if pod.ended is not None]
    # An agent ends with 0 only when a launcher has told it that the whole job is done.
    if observed.launcher is None and any(_code(pod) == 0 for pod in ended):
        return Verdict()
    failed = failed_pods(observed)
    permanent = next((pod for pod in failed if _code(pod) in PERMANENT), None)
    if permanent is not None:
        return _failed(explain_pod(observed, permanent))
    limit = observed.job.spec.policy.restarts
    if failed and failures is not None and failures.count > limit:
        last = explain_pod(observed, failed[0])
        often = f"{last.message}; policy.restarts: {limit} is used up, {failures.count} pods failed without a new step"
        return _failed(last.model_copy(update={"message": often}))
    return None


def _by_deadline(observed: Observed) -> Verdict | None:
    passed = overdue(observed)
    if passed is None:
        return None
    if passed.reason == "NotPlaced":
        return _failed(explain_wait(observed, passed.message))
    hint = "Raise policy.activeDeadline in a new job that goes on from this one's checkpoint or output."
    return _failed(Failure(failure_class=passed.reason, message=passed.message, hint=hint))


def _failed(failure: Failure) -> Verdict:
    return Verdict(failure)


def _code(pod: Pod) -> int | None:
    return pod.ended.exit_code if pod.ended else None
