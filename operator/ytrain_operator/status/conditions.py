"""The conditions of a job, so that `kubectl wait` and GitOps tools (kstatus) read them rightly.

A job that trains is Ready (a wait for it ends, the run may take days); one that failed is Stalled, and so is one that
only a person can help. All six are always there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ytrain_api.status import Condition
from ytrain_operator.timestamps import to_text


@dataclass(frozen=True)
class Finding:
    """What a condition should say."""

    type: str
    holds: bool
    reason: str
    message: str


def conditions(
    before: Iterable[Condition], findings: Iterable[Finding], *, generation: int, now: datetime
) -> list[Condition]:
    """The conditions, each with the time when its status last changed."""
    old = {condition.type: condition for condition in before}
    result = []
    for finding in findings:
        status = "True" if finding.holds else "False"
        same = old.get(finding.type)
        since = same.last_transition_time if same and same.status == status else to_text(now)
        result.append(
            Condition.model_validate(
                {
                    "type": finding.type,
                    "status": status,
                    "reason": finding.reason,
                    "message": finding.message[:8000],
                    "last_transition_time": since,
                    "observed_generation": generation,
                }
            )
        )
    return result


def findings(phase: str, *, ready: tuple[bool, str, str], failure: tuple[str, str] | None) -> list[Finding]:
    """What the six conditions say.

    Args:
        ready: whether the job is accepted and placed, a reason and a message.
        failure: class and message, if the job failed.
    """
    placed, reason, message = (False, *failure) if failure else ready
    return [
        Finding("Ready", placed, reason, message),
        Finding("Running", phase in ("Running", "Saving"), phase, ""),
        Finding("Suspended", phase == "Suspended", phase, message if phase == "Suspended" else ""),
        Finding("Complete", phase == "Succeeded", phase, message if phase == "Succeeded" else ""),
        Finding("Failed", failure is not None, *(failure or (phase, ""))),
        Finding("Stalled", failure is not None, *(failure or (phase, ""))),
    ]
