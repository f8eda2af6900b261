"""Looks at all that a job names, each by itself: sources, model folders, tokenizer, and every set of records."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ytrain.data import SUFFIXES
from ytrain.methods.chosen import TRAINING, chosen_method
from ytrain.methods.findings import Findings
from ytrain.methods.inputs import Inputs, load_inputs
from ytrain.models.load import load_tokenizer
from ytrain.sources import Sources
from ytrain_api import JobFile
from ytrain_api.errors import YTrainError
from ytrain_api.job import Spec

MODEL, ADAPTER = "spec.model.source", "spec.model.lora.startFrom"
TRAIN, VALIDATION = "spec.data.train", "spec.data.validation"


def broken_sources(spec: Spec, sources: Sources, findings: Findings) -> set[str]:
    """Look for everything that the job names; returns the fields whose source is not there."""
    looks: dict[str, Callable[[], object]] = {
        field: partial(sources.resolve, uri) for field, uri in (model_sources(spec) | _adapter_source(spec)).items()
    }
    looks |= {field: partial(sources.files, uri, SUFFIXES) for field, uri in _data_sources(spec).items()}
    return {field for field, look in looks.items() if findings.attempt(look, field) is None}


def model_sources(spec: Spec) -> dict[str, str]:
    """The models that a job names, by field: the one that is trained first."""
    others = chosen_method(spec).others if spec.method in TRAINING else []
    return {MODEL: spec.model.source} | {other.field: other.source for other in others}


def _adapter_source(spec: Spec) -> dict[str, str]:
    lora = spec.model.lora
    return {ADAPTER: lora.start_from} if lora and lora.start_from else {}


def _data_sources(spec: Spec) -> dict[str, str]:
    evaluation = spec.evaluation
    return {
        **{f"{TRAIN}[{i}].source": entry.source for i, entry in enumerate(spec.data.train)},
        **{f"{VALIDATION}[{i}].source": entry.source for i, entry in enumerate(spec.data.validation)},
        **{f"spec.evaluation.retention[{entry.name}].source": entry.source for entry in evaluation.retention},
        **{f"spec.evaluation.tasks[{entry.name}].source": entry.source for entry in evaluation.tasks},
    }


def read_inputs(
    job_file: JobFile,
    sources: Sources,
    *,
    cache: Path,
    broken: set[str],
    findings: Findings,
    tell: Callable[[str], None],
) -> Inputs | None:
    """The inputs of the job, or its training data alone where something else is wrong; None without training data."""
    load = partial(load_inputs, sources=sources, cache=cache, skipped=None, tell=tell)
    if not broken:
        try:
            return load(job_file)
        except YTrainError:
            pass  # comes again below, where it does not hide what lies behind it
    spec = job_file.job.spec
    if MODEL in broken:
        return None
    if findings.attempt(lambda: load_tokenizer(sources.resolve(spec.model.source).path)) is None:
        return None
    if any(field.startswith(TRAIN) for field in broken):
        return None

    def read(part: Spec) -> Inputs | None:
        job = job_file.job.model_copy(update={"spec": part})
        return findings.attempt(lambda: load(replace(job_file, job=job)))

    training, *others = _parts(spec, broken)
    inputs = read(training)
    if inputs is not None:
        for part in others:
            read(part)
    return inputs


def _parts(spec: Spec, broken: set[str]) -> Iterator[Spec]:
    """The job with its training data alone, then with one more of its other data each; nothing with a broken source."""
    lora, sft, cpt = spec.model.lora, spec.sft, spec.cpt
    without_evaluation = spec.evaluation.model_copy(update={"tasks": [], "retention": []})
    alone = spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"lora": lora and lora.model_copy(update={"start_from": ""})}),
            "sft": sft and sft.model_copy(update={"teacher": None}),
            "cpt": cpt and cpt.model_copy(update={"selection": None}),
            "data": spec.data.model_copy(update={"validation": []}),
            "evaluation": without_evaluation,
        }
    )
    yield alone
    if spec.data.validation and not any(field.startswith(VALIDATION) for field in broken):
        yield alone.model_copy(update={"data": spec.data})
    for kind in ("retention", "tasks"):
        for entry in getattr(spec.evaluation, kind):
            if f"spec.evaluation.{kind}[{entry.name}].source" not in broken:
                evaluation = without_evaluation.model_copy(update={kind: [entry]})
                yield alone.model_copy(update={"evaluation": evaluation})
