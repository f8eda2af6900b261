"""Analysing a corpus: one job, from its file to the ranked and the cleaned records; `analyse` reads top to bottom.

It can be stopped at any point and called again with the same arguments: what is scored is not scored twice.
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from ytrain import __version__
from ytrain.corpus.files import CLEANED, SCORED, write_files
from ytrain.corpus.judgement import Judgement, judge
from ytrain.corpus.page import write_page
from ytrain.corpus.records import Records
from ytrain.corpus.scoring import ScoreFiles, score
from ytrain.data.cache import combined_digest, file_digest
from ytrain.data.preparation import DataSource
from ytrain.data.reading import SUFFIXES
from ytrain.engine.device import choose_device, choose_precision, describe, peak_memory_bytes
from ytrain.engine.process import reuse_freed_memory
from ytrain.engine.world import World
from ytrain.methods.bucket_output import RECORD, BucketOutput
from ytrain.methods.epoch_cost import EpochCost, epoch_cost
from ytrain.methods.inputs import Inputs
from ytrain.methods.options import RunOptions
from ytrain.methods.output import in_bucket, locate, told_path
from ytrain.methods.reading import check_same_data, inputs_of_run
from ytrain.methods.setup import check_row_positions, scored_row_tokens
from ytrain.methods.stopwatch import Stopwatch
from ytrain.models.folder import check_empty, check_writable
from ytrain.models.load import load_config, load_language_model
from ytrain.models.probe import check_packed_forward
from ytrain.report.live import Progress
from ytrain.sources import Sources
from ytrain.training.run_folder import read_json, write_json
from ytrain.training.stop import StopRequest
from ytrain_api import JobFile, YTrainJob, config_digest
from ytrain_api.corpus import Corpus
from ytrain_api.errors import Preempted
from ytrain_api.job import Spec

PAGE = "corpus.html"


def analyse(
    job_file: JobFile, options: RunOptions, config: str, progress: Progress, stop: StopRequest, world: World
) -> dict[str, Any]:
    """Run the job to its end; returns what result.json records.

    Raises:
        SpecError, DataError, TransientError: before anything was scored.
        Preempted: `stop` asked for it; what was scored is kept.
    """
    spec, folder, watch = job_file.job.spec, options.folder, Stopwatch(progress)
    assert spec.corpus is not None
    scored_as = _scored_as(job_file.job)
    target, bucket = _target(spec, options, scored_as) if world.leads else (None, None)
    with watch.phase("tokenising", "reading and tokenising the data"):
        inputs = inputs_of_run(job_file, options, progress, stop, world)
    device = choose_device(options.device)
    check_row_positions(spec, load_config(inputs.model.path), inputs)
    with watch.phase("loading", "loading the model"):
        dtype = choose_precision(spec.model.precision, device)
        model = load_language_model(inputs.model.path, compute_dtype=dtype, device=device, trained=False)
        check_packed_forward(model, packing=spec.data.packing)
    with watch.phase("connecting", "meeting the other ranks"):
        world.connect(device)
        check_same_data(inputs, world)
    dataset = inputs.train.dataset
    rows = scored_row_tokens(spec)
    identity = combined_digest([scored_as, inputs.train.report.digest, str(inputs.model.revision), str(rows)])
    scores = ScoreFiles(folder.path / "scores" / identity, dataset, rows)
    reuse_freed_memory()
    with watch.phase("scoring", "scoring"):
        finished = score(
            model,
            dataset,
            scores,
            packing=spec.data.packing,
            world=world,
            progress=progress,
            stopped=lambda: bool(stop),
        )
    if not finished:
        name = stop.signal.name if stop.signal else "a signal to another rank"
        raise Preempted(f"stopped by {name} while scoring; what was scored is in {scores.folder}")
    if target is None:
        return {}
    with watch.phase("judging", "looking for wrong labels, clusters and duplicates"):
        files = [_files(inputs.sources, entry.source, entry.format) for entry in spec.data.train]
        records = Records(files, dataset, scores.folder / "records.jsonl")
        judgement = judge(spec.corpus, dataset, scores, records)
    with watch.phase("saving", "writing the records and the page"):
        origin = {"folder": str(folder.path.resolve()), "scoredAs": scored_as}
        _write(target, judgement, records, inputs, {"run": folder.identity(), "config": config, **origin})
        if bucket is not None:
            bucket.upload(target, progress.activity)
        summary = _summary(judgement, epoch_cost(spec, dataset))
        write_page(
            folder.path / PAGE,
            job_file.job.metadata.name,
            spec.corpus,
            summary,
            judgement,
            records,
            dataset,
            scores,
            inputs.tokenizer,
        )
    return {
        "job": job_file.job.metadata.name,
        "uid": job_file.job.metadata.uid,
        "state": "Succeeded",
        "step": scores.shards,
        "epoch": 1.0,
        "base": {"source": spec.model.source, "revision": inputs.model.revision},
        "versions": {"ytrain": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "device": describe(device),
        "precision": str(dtype).removeprefix("torch."),
        "data": inputs.train.report.to_json(),
        "ranks": world.size,
        "output": {"path": told_path(spec.output.target, target), "verified": {}},
        "corpus": summary,
        "memory": {"estimatedBytes": None, "peakBytes": peak_memory_bytes(device)},
        "timing": watch.seconds,
        "digests": {
            "output": combined_digest(file_digest(target / name) for name in (SCORED, CLEANED)),
            "data": inputs.train.report.digest,
            "config": config,
        },
    }


def _scored_as(job: YTrainJob) -> str:
    """Digest of what the scores depend on: a job that differs in `corpus` alone judges them anew."""
    return config_digest(job.model_copy(update={"spec": job.spec.model_copy(update={"corpus": Corpus()})}))


def _target(spec: Spec, options: RunOptions, scored_as: str) -> tuple[Path, BucketOutput | None]:
    """Where the records go. What this work folder wrote there of the same scores is replaced, else it is refused."""
    wanted = spec.output.target
    path = locate(wanted, options.base_dir, options.claims, options.folder.output)
    field = f"spec.output.target: {wanted or path}"

    def ours(record: Mapping[str, Any], _: bool = True) -> bool:
        return record.get("folder") == str(options.folder.path.resolve()) and record.get("scoredAs") == scored_as

    if not ours(read_json(path / RECORD) if (path / RECORD).is_file() else {}):
        check_empty(path, field=field)
    check_writable(path.parent, field=field)  # they are written beside their place
    return path, BucketOutput(wanted, ours) if in_bucket(wanted) else None


def _files(sources: Sources, uri: str, format: str) -> DataSource:
    return DataSource(files=sources.files(uri, SUFFIXES).files, format=format)


def _write(target: Path, judgement: Judgement, records: Records, inputs: Inputs, record: Mapping[str, str]) -> None:
    """Write the records beside their place and move them there, so that the folder is whole or absent."""
    stage = target.with_name(f".{target.name}.partial")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    write_files(stage, judgement, records, inputs.train.dataset, inputs.tokenizer)
    write_json(stage / RECORD, {**record, "data": inputs.train.report.digest})
    shutil.rmtree(target, ignore_errors=True)
    stage.rename(target)


def _summary(judgement: Judgement, cost: EpochCost) -> dict[str, Any]:
    clusters = judgement.clusters
    first = judgement.first
    return {
        "records": len(judgement.loss_N),
        "classes": judgement.classes(),
        "tokenClasses": dict(judgement.token_classes),
        "meanLoss": judgement.token_loss.mean,
        "meanEntropy": judgement.token_entropy.mean,
        "clusters": len(clusters.representatives) if clusters is not None else None,
        "nearDuplicates": sum(group != i for i, group in enumerate(first)) if first is not None else None,
        "odd": len(judgement.odd),
        "leftOut": dict(Counter(judgement.left_out.values())),
        "kept": len(judgement.loss_N) - len(judgement.left_out),
        "cost": {"tokens": cost.tokens, "rows": cost.rows, "rowTokens": cost.row_tokens, "filled": cost.filled},
    }
