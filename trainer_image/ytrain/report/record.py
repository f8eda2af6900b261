"""Reads a run folder, in whatever state the run left it, into one `RunRecord`.

A missing file is normal (the run has not come that far); a file that cannot be read becomes a sentence in `problems`,
because the page has to appear above all when something went wrong.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ytrain.report.run_files import Evaluation, Result, SampledAnswers, SkippedRecord, StepMetrics, step_metrics

SHOWN_SKIPPED = 10
"""Skipped records that are shown with their place; all of them stand in skipped.jsonl."""

Model = TypeVar("Model", bound=BaseModel)
Line = TypeVar("Line")


class RunState(StrEnum):
    """How far a run has come, as its folder tells it."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    PREEMPTED = "Preempted"
    UNFINISHED = "Unfinished"


@dataclass(frozen=True)
class SkippedRecords:
    """The unusable records: how many for which reason, and the first few with their place."""

    reasons: dict[str, int] = field(default_factory=dict)
    first: tuple[SkippedRecord, ...] = ()

    @property
    def total(self) -> int:
        """All skipped records."""
        return sum(self.reasons.values())


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds; `metrics` has one entry per step, in order, also after a resume repeated some steps."""

    folder: Path
    job: dict[str, Any]
    metrics: tuple[StepMetrics, ...]
    evaluation: Evaluation | None
    result: Result | None
    skipped: SkippedRecords
    samples: tuple[SampledAnswers, ...]
    """The trees of answers that a run with rewards kept, in the order of their steps."""
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """The job's name, or the folder's where the job file is missing."""
        metadata = self.job.get("metadata") or {}
        return str(metadata.get("name") or self.folder.resolve().name)

    @property
    def state(self) -> RunState:
        """A run without result.json is still running or was killed before it could write one: `UNFINISHED`."""
        return RunState(self.result.state) if self.result else RunState.UNFINISHED


def read_run(folder: Path) -> RunRecord:
    """Read the run folder. Raises FileNotFoundError when there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder; `ytrain run FILE --workdir {folder}` makes one")
    problems: list[str] = []
    metrics = _read_lines(folder / "metrics.jsonl", step_metrics, problems)
    skipped = _read_lines(folder / "skipped.jsonl", SkippedRecord.model_validate, problems)
    return RunRecord(
        folder=folder,
        job=_read_job(folder / "job.yaml", problems),
        metrics=tuple(line for _, line in sorted({line.step: line for line in metrics}.items())),
        evaluation=_read_json(folder / "evaluation.json", Evaluation, problems),
        result=_read_json(folder / "result.json", Result, problems),
        skipped=SkippedRecords(
            reasons=dict(Counter(record.reason for record in skipped).most_common()),
            first=tuple(skipped[:SHOWN_SKIPPED]),
        ),
        samples=_read_samples(folder / "samples", problems),
        problems=tuple(problems),
    )


def _read_lines(path: Path, parsed_as: Callable[[Any], Line], problems: list[str]) -> list[Line]:
    """All readable lines of a JSONL file; a broken last line is a write that a kill cut short, and not worth a word."""
    if not path.exists():
        return []
    parsed: list[Line] = []
    broken: list[int] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                parsed.append(parsed_as(json.loads(line)))
            except (ValueError, ValidationError):
                if line.endswith("\n"):
                    broken.append(number)
    if broken:
        problems.append(f"{path.name}: {len(broken)} unreadable lines were left out, the first is line {broken[0]}")
    return parsed


def _read_samples(folder: Path, problems: list[str]) -> tuple[SampledAnswers, ...]:
    read = [_read_json(path, SampledAnswers, problems) for path in sorted(folder.glob("step-*.json"))]
    return tuple(one for one in read if one)


def _read_json(path: Path, model: type[Model], problems: list[str]) -> Model | None:
    if not path.exists():
        return None
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        place = [".".join(map(str, first["loc"]))] if first["loc"] else []
        problems.append(f"{': '.join([path.name, *place, first['msg']])}; its content is left out")
    except ValueError as error:
        problems.append(f"{path.name}: {error}; its content is left out")
    return None


def _read_job(path: Path, problems: list[str]) -> dict[str, Any]:
    """The YTrainJob alone: the Secrets and ConfigMaps that may stand beside it never reach the page."""
    if not path.exists():
        return {}
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (ValueError, yaml.YAMLError) as error:
        problems.append(f"{path.name}: {error}; its content is left out")
        return {}
    jobs = [document for document in documents if isinstance(document, dict) and document.get("kind") == "YTrainJob"]
    return jobs[0] if jobs else {}
