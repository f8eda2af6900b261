"""What a run has found, in the words of the job's status: read from what it records, told as soon as it is recorded."""

import math
from collections.abc import Mapping
from typing import Any

from ytrain.training.run_folder import RunFolder, read_json
from ytrain_api.job import Spec
from ytrain_api.protocol import Facts
from ytrain_api.status import Change, DataStatus, EvaluationStatus, NamedChange, OutputStatus


def data_status(counts: Mapping[str, Any]) -> DataStatus:
    """The records of a job's training data, from the `data` of result.json."""
    return DataStatus(
        read=counts["read"],
        used=counts["used"],
        skipped=counts["skipped"],
        truncated=counts["truncated"],
        supervised_tokens=counts["supervisedTokens"],
    )


def evaluation_status(record: Mapping[str, Any]) -> EvaluationStatus:
    """Gain and forgetting up to the latest evaluation of evaluation.json; five digits tell them apart."""
    before: Mapping[str, Any] = record["before"]
    later = record.get("after") or (record["history"] or [None])[-1]
    after: Mapping[str, Any] = later or {}
    validation = _change(before["validation"], after.get("validation"), "loss")
    return EvaluationStatus(
        step=(later or before)["step"],
        validation=Change.model_validate(validation) if before["validation"] else None,
        tasks=_changes(before["tasks"], after.get("tasks", ()), "accuracy"),
        retention=_changes(before["retention"], after.get("retention", ()), "loss"),
        kl_to_start=_rounded(later["klToStart"]["value"]) if later and later["klToStart"] else None,
    )


def facts_of_finished(folder: RunFolder, spec: Spec) -> Facts:
    """What a run that is done has recorded."""
    result = read_json(folder.result)
    target, digests = spec.output.target or "", result["digests"]
    return Facts(
        data=data_status(result["data"]),
        evaluation=evaluation_status(read_json(folder.evaluation)) if folder.evaluation.is_file() else None,
        output=OutputStatus(
            # A path in this pod says nothing to who reads the status; the claim can be another job's model.source.
            path=target if target.startswith("pvc://") else result["output"]["path"],
            digest=digests["output"],
            base_revision=result["base"]["revision"],
            data_digest=digests["data"],
            config_digest=digests["config"],
        ),
    )


def _changes(before: Any, after: Any, key: str) -> list[NamedChange]:
    later = {entry["name"]: entry for entry in after}
    return [
        NamedChange.model_validate({"name": entry["name"], **_change(entry, later.get(entry["name"]), key)})
        for entry in before
    ]


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, key: str) -> dict[str, float | None]:
    return {
        "before": _rounded(before[key]) if before else None,
        "after": _rounded(after[key]) if after else None,
    }


def _rounded(value: float) -> float | None:
    """JSON has no number for what is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
