"""What the API server has against a job's children, and what to do about it, in its own words."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from ytrain_api.status import Condition, Status
from ytrain_operator.status.conditions import conditions, findings
from ytrain_operator.status.summary import Problem

_ROWS = (
    ("exceeded quota", "QuotaExceeded", "Other jobs of this namespace may end, or its quota be raised", False),
    ("being terminated", "NamespaceTerminating", "The namespace is being deleted", False),
    ("violates PodSecurity", "PodSecurity", "launcher.template or workers.template asks for more than it may", True),
    ("is forbidden", "Forbidden", "The operator's role or the cluster's admission policy does not allow it", True),
    ("cannot", "Forbidden", "The operator's role does not allow it; the chart's roles say what it needs", True),
)
"""Words, reason, advice, and whether only a person can mend it."""


def named(status: int | None, message: str) -> Problem:
    """The name of a refusal that will not pass by itself at once."""
    for words, reason, advice, stalled in _ROWS:
        if words in message:
            return Problem(reason, f"{message.rstrip('.')}. {advice}", stalled)
    return Problem("Refused", f"the API server refuses ({status}): {message}", stalled=True)


def lasting(status: int, message: str) -> Problem:
    """What should have passed by now, such as an admission webhook that is away; it is tried on."""
    return Problem("ApiServer", f"the API server cannot do it ({status}), it is tried again: {message}", stalled=False)


def unknown_spec(raw: Mapping[str, Any], error: ValidationError, now: datetime) -> dict[str, Any]:
    """The status of a job that the API server took and this operator cannot read: their versions differ.

    All else that was written stays, whether it is understood or not. Of a job that has ended everything does: were
    its end forgotten, an operator that knows it again would train it again.
    """
    before: dict[str, Any] = raw.get("status", {})
    said_before = before.get("conditions", [])
    if any(each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in said_before):
        return before
    faults = "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)[:3]
    )
    message = f"This operator does not know such a job ({faults}). Upgrade the chart, its CRD and operator together"
    generation = raw["metadata"]["generation"]
    said = conditions(
        _conditions(said_before),
        findings("Pending", ready=(False, "", ""), failure=("UnknownSpec", message)),
        generation=generation,
        now=now,
    )
    dumped = [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in said if each.type != "Failed"]
    return {**before, "observedGeneration": generation, "conditions": dumped}


def _conditions(raw: list[dict[str, Any]]) -> list[Condition]:
    try:
        return Status.model_validate({"conditions": raw}, by_alias=True, by_name=False).conditions
    except ValidationError:
        return []
