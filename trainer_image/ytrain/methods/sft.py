"""Supervised fine-tuning: one job, from its file to a verified output folder.

`train` reads top to bottom what happens in a run. It can be stopped at any point and called again with the same
arguments: what is finished is not done twice.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from ytrain_api import JobFile, config_digest, dump_job
from ytrain_api.errors import SpecError

from ytrain import __version__
from ytrain.engine.device import DeviceName, choose_device, choose_precision, describe, peak_memory_bytes
from ytrain.methods.availability import check_available
from ytrain.methods.evaluator import Evaluator
from ytrain.methods.inputs import Inputs, apply_secrets, load_inputs
from ytrain.methods.setup import Models, engine, load_models, objective, peak_learning_rate, plan
from ytrain.models.export import Verified, export
from ytrain.models.folder import check_empty, digest
from ytrain.models.probe import check_packed_forward
from ytrain.report.live import Progress
from ytrain.report.page import write_report
from ytrain.sources import Sources
from ytrain.training.checkpoint import Checkpoints, Position, read_position, restore
from ytrain.training.loop import Loop, LoopSettings, Trainee
from ytrain.training.metrics import MetricsLog
from ytrain.training.run_folder import Resume, RunFolder, read_json, write_json
from ytrain.training.schedule import learning_rate
from ytrain.training.stop import StopRequest

VERIFIED_SAMPLES, VERIFIED_TOKENS = 3, 512
EXPORT_RECORD = "ytrain.json"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the command line places a run on this machine; nothing here changes the result."""

    folder: RunFolder
    claims: Mapping[str, Path]
    device: DeviceName
    resume: Resume
    cache: Path


class Stopwatch:
    """Seconds of each phase of a run, told to the progress display as they begin."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def phase(self, key: str, words: str) -> Iterator[None]:
        self._progress.phase(words)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[key] = self.seconds.get(key, 0.0) + time.monotonic() - began


def train(job_file: JobFile, base_dir: Path, options: RunOptions, progress: Progress, stop: StopRequest) -> None:
    """Run the job to its end.

    Args:
        base_dir: folder of the job file, for relative sources.
        stop: asked after every step.

    Raises:
        SpecError, DataError, TransientError: before anything was trained.
        TrainingError: training cannot go on.
        Preempted: `stop` asked for it; a checkpoint was saved.
    """
    check_available(job_file.job)
    apply_secrets(job_file)
    spec, folder, watch = job_file.job.spec, options.folder, Stopwatch(progress)
    identity = config_digest(job_file.job)
    folder.check(identity, options.resume)
    if folder.finished():
        progress.note(f"{folder.path}: this job is done already; its output is {read_json(folder.result)['output']['path']}")
        return
    folder.open(identity, dump_job(job_file.job))
    sources = Sources(
        claims=options.claims, config_maps=job_file.config_maps, base_dir=base_dir, scratch=folder.path / ".inputs"
    )
    target = output_folder(spec.output.target, options, base_dir)
    exported = _exported(target, identity)
    if not exported:
        check_empty(target, field=f"spec.output.target: {spec.output.target or target}")

    with watch.phase("tokenising", "reading and tokenising the data"):
        inputs = load_inputs(job_file, sources, cache=options.cache, skipped=folder.skipped)
    _tell_inputs(inputs, progress)
    device = choose_device(options.device)
    dtype = choose_precision(spec.model.precision, device)
    with watch.phase("loading", "loading the model"):
        models = load_models(spec, inputs, device=device, compute_dtype=dtype)
        check_packed_forward(models.current, packing=spec.data.packing)
    evaluator = Evaluator(spec, inputs, models.current, models.start, folder)
    loop = _loop(spec, identity, inputs, models, evaluator, folder, progress, stop)
    with watch.phase("evaluating", "evaluating before training"):
        if loop.position.step == 0:
            evaluator.before()
    try:
        with watch.phase("training", "training"):
            position = loop.run()
    finally:
        loop.metrics.close()
        write_report(folder.path)
    with watch.phase("evaluating", "evaluating after training"):
        evaluator.after(position.step)
    with watch.phase("saving", "writing and verifying the output"):
        verified = _export(spec, inputs, models, target, identity, position, exported)
    watch.seconds["saving"] += loop.saving_seconds
    watch.seconds["training"] -= loop.saving_seconds
    result = _result(job_file, inputs, models, position, watch, identity, device)
    result["output"] = {"path": str(target), "verified": verified}
    result["digests"]["output"] = digest(target)
    write_json(folder.result, result)
    write_report(folder.path)


def output_folder(target: str | None, options: RunOptions, base_dir: Path) -> Path:
    """Where the result goes: the job's target, or `output/` in the work folder.

    Raises:
        SpecError: a claim without a folder here, or a path that leaves it.
    """
    if target is None:
        return options.folder.output
    scheme, _, rest = target.partition("://")
    if scheme == "file":
        return (base_dir / rest).resolve()
    claim, _, path = rest.partition("/")
    if claim not in options.claims:
        raise SpecError(f"spec.output.target: {target}: no folder for the claim here; give one with --claim {claim}=DIR")
    root = options.claims[claim].resolve()
    folder = (root / path).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise SpecError(f"spec.output.target: {target}: name a folder below the claim")
    return folder


def _tell_inputs(inputs: Inputs, progress: Progress) -> None:
    report = inputs.train.report
    progress.note(
        f"{report.samples:,} samples, {report.tokens:,} tokens, {report.supervised_tokens:,} of them learned; "
        f"{report.skipped} of {report.read} records skipped"
    )
    for skipped in report.first_skipped:
        progress.note(f"  skipped {skipped}")
    if inputs.ignored_files:
        progress.note(f"not data, ignored: {', '.join(inputs.ignored_files[:5])}")


def _loop(
    spec: Any,
    identity: str,
    inputs: Inputs,
    models: Models,
    evaluator: Evaluator,
    folder: RunFolder,
    progress: Progress,
    stop: StopRequest,
) -> Loop:
    """The training loop, at the newest usable checkpoint or at the start."""
    optimization = spec.optimization
    peak = peak_learning_rate(spec, models.current.module.config.get_text_config().hidden_size)
    if optimization.learning_rate is None:
        progress.note(f"learning rate {peak:.2g}: the default for {'a LoRA of this width' if spec.model.lora else 'a full training'}")
    trainee = Trainee(
        model=models.current,
        engine=engine(spec, models.current),
        objective=objective(spec),
        samples=inputs.train.dataset,
        start=models.start() if spec.sft.base_anchor else None,
        teacher=models.teacher,
    )
    data_digest = inputs.train.report.digest
    checkpoints = Checkpoints(folder.checkpoints, keep=spec.checkpoint.keep)
    position = Position(step=0, epoch=0.0, config_digest=identity, data_digest=data_digest, labels_trained=0)
    torch.manual_seed(optimization.seed)
    newest = checkpoints.latest(progress.note)
    if newest is not None:
        position = read_position(newest)
        if position.data_digest != data_digest:
            raise SpecError(
                f"{newest}: was trained on other data than the job's sources hold now; "
                "put the data back, or start anew in another folder with --workdir"
            )
        restore(newest, trainee.engine.load)
        progress.note(f"going on from {newest.name}")
    return Loop(
        trainee=trainee,
        plan=plan(spec, inputs.train.dataset),
        settings=LoopSettings(
            learning_rate=lambda step, total: learning_rate(
                step, total, peak=peak, kind=optimization.schedule, warmup_fraction=optimization.warmup_fraction
            ),
            checkpoint_seconds=spec.checkpoint.every.seconds,
            checkpoint_steps=spec.checkpoint.every_steps,
            evaluate_steps=spec.evaluation.every_steps,
            config_digest=identity,
            data_digest=data_digest,
        ),
        checkpoints=checkpoints,
        metrics=MetricsLog(folder.path, after=position.step),
        progress=progress,
        stop=stop,
        evaluate=evaluator.during,
        position=position,
    )


def _export(
    spec: Any, inputs: Inputs, models: Models, target: Path, identity: str, position: Position, exported: bool
) -> dict[str, Any]:
    if exported:  # the process died between the rename of the output and its own last record
        verified: dict[str, Any] = read_json(target / EXPORT_RECORD)["verified"]
        return verified
    dataset = inputs.train.dataset
    samples = [
        torch.from_numpy(dataset[i].input_ids[:VERIFIED_TOKENS].astype("int64"))
        for i in range(min(VERIFIED_SAMPLES, len(dataset)))
    ]

    def record(verified: Verified) -> dict[str, Any]:
        return {
            "config": identity,
            "data": position.data_digest,
            "base": {"source": spec.model.source, "revision": inputs.model.revision},
            "step": position.step,
            "verified": {
                "maxLogitDifference": verified.max_logit_difference,
                "mergedMaxLogitDifference": verified.merged_max_logit_difference,
                "changeFromBase": verified.change_from_base,
            },
        }

    verified = export(
        models.current,
        inputs.tokenizer,
        target,
        merge=spec.output.merge,
        samples=samples,
        record=lambda stage, verified: write_json(stage / EXPORT_RECORD, record(verified)),
    )
    return record(verified)["verified"]


def _exported(target: Path, identity: str) -> bool:
    path = target / EXPORT_RECORD
    return path.is_file() and read_json(path)["config"] == identity


def _result(
    job_file: JobFile,
    inputs: Inputs,
    models: Models,
    position: Position,
    watch: Stopwatch,
    identity: str,
    device: torch.device,
) -> dict[str, Any]:
    trainable = models.current.trainable()
    return {
        "job": job_file.job.metadata.name,
        "uid": None,
        "state": "Succeeded",
        "step": position.step,
        "epoch": position.epoch,
        "digests": {"data": position.data_digest, "config": identity},
        "base": {"source": job_file.job.spec.model.source, "revision": inputs.model.revision},
        "versions": {"ytrain": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "device": describe(device),
        "precision": str(models.current.compute_dtype).removeprefix("torch."),
        "parameters": {
            "total": sum(p.numel() for p in models.current.module.parameters()),
            "trainable": sum(p.numel() for p in trainable.values()),
        },
        "data": inputs.train.report.to_json(),
        "memory": {"peakBytes": peak_memory_bytes(device)},
        "timing": watch.seconds,
    }

