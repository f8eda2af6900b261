"""Gives a failure a class that programs can count and a hint that its reader can follow: one table, read from the top.

A hint is computed from the job's own numbers: it never asks for what is so already.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ytrain_api import YTrainJob
from ytrain_api.protocol import LastWord
from ytrain_api.status import Failure
from ytrain_operator.observed import Observed, Pod
from ytrain_operator.status import hints
from ytrain_operator.status.evidence import Evidence, of_launcher, of_pod
from ytrain_operator.status.waiting import waiting


@dataclass(frozen=True)
class Class:
    """A row: the class's name, what speaks for it, and what to do about it."""

    name: str
    speaks: Callable[[Evidence], bool]
    hint: Callable[[YTrainJob], str]


def _says(*words: str) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.says(*words)


def _is(*kinds: str, exit_code: int | None = None) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.kind in kinds or (exit_code is not None and evidence.exit_code == exit_code)


def _of_launcher(speaks: Callable[[Evidence], bool]) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.pod is not None and evidence.pod.role == "launcher" and speaks(evidence)


_KILLED = _is("OOMKilled")
_EVICTED = _is("Evicted", "Preempting", "NodeShutdown", "Terminated")

CLASSES: tuple[Class, ...] = (
    Class("HostOutOfMemory", _of_launcher(_KILLED), hints.launcher_memory),
    Class("HostOutOfMemory", _KILLED, hints.host_memory),
    Class(
        "DeviceOutOfMemory",
        _says("CUDA out of memory", "torch.OutOfMemoryError", "OutOfMemoryError:", "HIP out of memory"),
        hints.device_memory,
    ),
    Class("VolumeFull", _says("No space left on device", "disk is full", "Disk quota exceeded"), hints.volume_full),
    Class("NotPlaced", _says("policy.pendingDeadline"), hints.not_placed),
    Class("Hang", _is("Hang"), hints.hang),
    Class("Diverged", _is("Diverged"), hints.diverged),
    Class("RewardError", _is("RewardError"), hints.reward),
    Class("RewardError", _says("spec.rl.reward.python"), hints.reward),
    Class("DataError", _is("DataError", exit_code=3), hints.data),
    Class("SpecError", _is("SpecError", exit_code=2), hints.spec),
    Class("Evicted", _of_launcher(_EVICTED), hints.launcher_evicted),
    Class("Evicted", _EVICTED, hints.evicted),
    Class("LostNode", _is("NodeLost"), hints.lost_node),
    Class(
        "CommunicationTimeout",
        _says("Watchdog caught collective", "NCCL timeout", "ncclSystemError", "ncclRemoteError", "Timed out waiting"),
        hints.communication,
    ),
    Class("HostOutOfMemory", _says("SIGKILL (out of memory?)"), hints.host_memory),
    Class("LostWorker", _is("LostWorker", "LostPeer"), hints.lost_worker),
    Class("TrainingError", _is("TrainingError", exit_code=4), hints.log),
    Class("RanksFailed", _is(exit_code=5), hints.log),
)


def explain_pod(observed: Observed, pod: Pod) -> Failure:
    """Why a pod ended."""
    evidence = of_pod(pod)
    assert pod.ended is not None
    how = pod.ended.reason if pod.ended.reason not in ("", "Error") else f"exit code {pod.ended.exit_code}"
    lines = evidence.last_lines
    said = f": {lines[-1]}" if lines else ""
    return _explained(observed, evidence, f"{pod.name} ended with {how}{said}")


def explain_launcher(observed: Observed, word: LastWord) -> Failure:
    """Why the launcher gave the job up."""
    return _explained(observed, of_launcher(observed, word), word.message)


def explain_told(observed: Observed, told: Failure) -> Failure:
    """Why ranks were started again, from what the launcher tells while it goes on."""
    evidence = Evidence(text=told.message or "", kind=told.failure_class or "", exit_code=told.exit_code, told=told)
    return _explained(observed, evidence, told.message or "")


def explain_wait(observed: Observed, message: str) -> Failure:
    """Why pods were not placed in time."""
    wait = waiting(observed)
    return Failure(
        failure_class=wait.reason if wait else "NotPlaced",
        message=f"{message}; {wait.message}" if wait else message,
        hint=wait.hint if wait and wait.hint else hints.not_placed(observed.job),
        pod=wait.pod if wait else None,
    )


def _explained(observed: Observed, evidence: Evidence, message: str) -> Failure:
    row = next((row for row in CLASSES if row.speaks(evidence)), None)
    told, pod = evidence.told, evidence.pod
    code = told.exit_code if told and (told.exit_code is not None or told.signal is not None) else evidence.exit_code
    signal = told.signal if told else code - 128 if code is not None and 128 < code < 160 else None
    return Failure(
        failure_class=row.name if row else "Crash",
        message=message[:4000],
        hint=(row.hint if row else hints.log)(observed.job),
        pod=pod.name if pod else None,
        rank=told.rank if told else None,
        node=pod.node if pod else None,
        exit_code=code,
        signal=signal,
        last_lines=evidence.last_lines,
    )
