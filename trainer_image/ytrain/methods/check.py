"""Checks a job before anything is trained: what is wrong with it, and what its run will be; no weights are loaded.

All that can be found is found in one go: job, output folder, sources, tokenizer, records, steps, memory, time.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from transformers import PretrainedConfig

from ytrain.data import DataReport, runs
from ytrain.engine.device import choose_precision
from ytrain.methods import advice, rl
from ytrain.methods.availability import check_available
from ytrain.methods.check_inputs import MODEL, broken_sources, model_sources, read_inputs
from ytrain.methods.chosen import TRAINING
from ytrain.methods.findings import Findings
from ytrain.methods.forecast import (
    Course,
    Duration,
    Memory,
    foretell_course,
    foretell_duration,
    foretell_memory,
    foretell_windows,
)
from ytrain.methods.inputs import Inputs, apply_secrets
from ytrain.methods.options import RunOptions
from ytrain.methods.output import OutputFolder
from ytrain.methods.policy import own_answers_scored
from ytrain.methods.sampling_cache import sampling_cache_bytes
from ytrain.methods.setup import check_row_positions, scored_row_tokens
from ytrain.models.cost import WindowCost
from ytrain.models.load import check_vocabulary, load_config
from ytrain.models.step_trace import NotTraceableError
from ytrain.report.series import byte_size
from ytrain.rl.rewards import Failure
from ytrain.sources import Sources
from ytrain.training.run_folder import run_identity
from ytrain_api import JobFile, config_digest
from ytrain_api.job import Spec
from ytrain_api.rl import Rl

PREVIEWS = 3


@dataclass(frozen=True)
class Preview:
    """A sample as a person reads it."""

    place: str
    """File and line of its record."""
    tokens: int
    labels: int
    runs: list[tuple[str, bool]]
    """Decoded text in order, and whether it is learned, or with rl: whether it is the record's own answer."""
    reward: float | str | None = None
    """With rl: what the reward gives for that answer, or why it gives nothing."""


@dataclass(kw_only=True)
class Check:
    """What a check found out; what could not be reached is None or empty."""

    findings: Findings = field(default_factory=Findings)
    """What keeps the job from running."""
    warnings: list[str] = field(default_factory=list)
    """What is allowed and probably not meant."""
    notes: list[str] = field(default_factory=list)
    """What is good to know."""
    previews: list[Preview] = field(default_factory=list)
    done: str = "learned"
    """What becomes of the answers' tokens: learned, or with a corpus job scored."""
    data: DataReport | None = None
    course: Course | None = None
    answers_per_step: int | None = None
    """Sampled for each step; with rl only."""
    windows: WindowCost | None = None
    memory: Memory | None = None
    duration: Duration | None = None


def check(
    job_file: JobFile,
    options: RunOptions,
    device: torch.device,
    processes: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> Check:
    """Check a job for `processes` ranks on `device`; what is wrong becomes a finding, nothing is raised.

    Args:
        tell: hears how far tokenising, or a download of data, is.
    """
    result, spec = Check(), job_file.job.spec
    result.findings.attempt(lambda: check_available(job_file.job))
    if spec.corpus is not None:
        result.done = "scored"
    result.warnings += filter(None, [advice.fields_without_effect(spec), advice.absent_secrets(job_file)])
    apply_secrets(job_file)
    if spec.output.target is not None:  # the work folder is chosen when the job is run
        result.findings.attempt(lambda: _output(job_file, options))
    with tempfile.TemporaryDirectory() as scratch:
        sources = Sources(
            claims=options.claims,
            config_maps=job_file.config_maps,
            base_dir=options.base_dir,
            scratch=Path(scratch),
            cache=options.cache,
            weights=False,
            tell=tell,
        )
        broken = broken_sources(spec, sources, result.findings)
        inputs = read_inputs(job_file, sources, cache=options.cache, broken=broken, findings=result.findings, tell=tell)
        configs = {
            field: result.findings.attempt(partial(_config, sources, uri, field))
            for field, uri in model_sources(spec).items()
            if field not in broken
        }
    config = configs.pop(MODEL, None)
    others = {field: other for field, other in configs.items() if other is not None}
    if config is not None:
        for field, other in others.items():
            result.findings.attempt(partial(check_vocabulary, other, config, field))
    if inputs is None:
        result.notes.append("the run was not foretold: that needs a model and its training data")
        return result
    _account(spec, inputs, result)
    if config is not None:
        result.findings.attempt(partial(check_row_positions, spec, config, inputs))
    if config is not None and spec.method in TRAINING:
        _foretell(spec, config, list(others.values()), inputs, device, processes, result)
    if config is not None and spec.corpus is not None:
        _foretell_scoring(spec, config, inputs, result)
    return result


def _output(job_file: JobFile, options: RunOptions) -> OutputFolder:
    return OutputFolder(
        job_file.job.spec,
        config_digest(job_file.job),
        run_identity(job_file.job),
        default=options.folder.output,
        base_dir=options.base_dir,
        claims=options.claims,
        run=options.folder if options.folder.begun() else None,
    )


def _config(sources: Sources, uri: str, field: str) -> PretrainedConfig:
    return load_config(sources.resolve(uri).path, field)


def _account(spec: Spec, inputs: Inputs, result: Check) -> None:
    """The account of the training data, and samples from its beginning, middle and end."""
    dataset = inputs.train.dataset
    result.data = inputs.train.report
    chosen = sorted({round(i * (len(dataset) - 1) / (PREVIEWS - 1)) for i in range(PREVIEWS)})
    rewards: list[float | str | None] = [None] * len(chosen)
    if spec.rl is not None:
        scored = result.findings.attempt(lambda: own_answers_scored(spec, inputs, chosen))
        rewards = [str(reward) if isinstance(reward, Failure) else reward for reward in scored or rewards]
        if reason := advice.no_reward(rewards):
            result.warnings.append(reason)
    samples = [dataset[i] for i in chosen]
    if spec.sft is not None and (reason := advice.no_end(samples, spec.data.max_tokens, inputs.tokenizer)):
        result.warnings.append(reason)
    for sample, reward in zip(samples, rewards, strict=True):
        place, labels = f"{sample.source}:{sample.line}", int(sample.supervised.sum())
        result.previews.append(Preview(place, len(sample.input_ids), labels, runs(sample, inputs.tokenizer), reward))
    if inputs.ignored_files:
        result.notes.append(f"not data, ignored: {', '.join(inputs.ignored_files[:5])}")


def _sampling(rl: Rl, config: PretrainedConfig, inputs: Inputs, compute_dtype: torch.dtype) -> str:
    """What sampling takes, as far as it can be told."""
    time = "time depends on how long answers become: the first steps of a run tell"
    if rl.rollout.engine == "vllm":
        return f"vLLM's weights and cache are not in this memory; {time}"
    cache = byte_size(sampling_cache_bytes(rl, config, inputs.train.dataset.longest_prompt, compute_dtype))
    return (
        f"sampling holds up to {cache} of keys and values in place of the activations, if answers take all of "
        f"maxNewTokens; {time}"
    )


def _foretell_scoring(spec: Spec, config: PretrainedConfig, inputs: Inputs, result: Check) -> None:
    """What a corpus job will compute, and whether there is enough to compare."""
    report = inputs.train.report
    result.notes.append(advice.scored_once(report, scored_row_tokens(spec)))
    warnings = [advice.few_records(report), advice.beyond_positions(config, inputs.train.dataset)]
    result.warnings += [warning for warning in warnings if warning]


def _foretell(
    spec: Spec,
    config: PretrainedConfig,
    others: Sequence[PretrainedConfig],
    inputs: Inputs,
    device: torch.device,
    processes: int,
    result: Check,
) -> None:
    dataset = inputs.train.dataset
    course = result.course = foretell_course(spec, config, dataset, device)
    result.answers_per_step = rl.answers_per_step(spec.rl, len(dataset)) if spec.rl else None
    result.windows = foretell_windows(spec, dataset)
    try:
        result.memory = result.findings.attempt(
            lambda: foretell_memory(spec, config, dataset, device=device, others=others, processes=processes)
        )
        if spec.rl is not None:
            result.notes.append(_sampling(spec.rl, config, inputs, choose_precision(spec.model.precision, device)))
        elif result.memory is not None:
            result.duration = foretell_duration(
                spec, config, dataset, course, device=device, others=others, processes=processes
            )
    except NotTraceableError:
        result.notes.append(f"memory and time of a {config.model_type} model cannot be told in advance")
    warnings = [
        advice.few_steps(spec, inputs.train.report, course),
        advice.too_much_memory(result.memory) if result.memory else None,
        advice.beyond_positions(config, dataset),
    ]
    result.warnings += [warning for warning in warnings if warning]
    note = advice.other_ranks(spec, processes)
    result.notes += [note] if note else []
