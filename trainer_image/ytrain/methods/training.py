"""Training a model (sft, cpt, rl): one job, from its file to a verified output; `train` reads top to bottom.

It can be stopped at any point and called again with the same arguments: what is finished is not done twice.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers

from ytrain import __version__
from ytrain.engine.base import Engine
from ytrain.engine.device import choose_device, choose_precision, describe, peak_memory_bytes
from ytrain.engine.world import World
from ytrain.methods.chosen import chosen_method
from ytrain.methods.evaluator import Evaluator
from ytrain.methods.forecast import measure_filling
from ytrain.methods.inputs import Inputs
from ytrain.methods.memory import estimated_bytes
from ytrain.methods.options import RunOptions
from ytrain.methods.output import OutputFolder
from ytrain.methods.policy import policy_learner
from ytrain.methods.reading import check_same_data, inputs_of_run
from ytrain.methods.setup import (
    Models,
    check_row_positions,
    engine,
    load_models,
    objective,
    peak_learning_rate,
    plan,
    selection,
)
from ytrain.methods.stopwatch import Stopwatch
from ytrain.models.language_model import LanguageModel
from ytrain.models.load import load_config
from ytrain.models.probe import check_packed_forward
from ytrain.report.live import Progress
from ytrain.training.checkpoint import Checkpoints, Position, checkpoint_status, read_position, restore
from ytrain.training.loop import Learner, Loop, LoopSettings
from ytrain.training.metrics import MetricsLog
from ytrain.training.run_folder import RunFolder, run_identity
from ytrain.training.schedule import learning_rate
from ytrain.training.stop import StopRequest
from ytrain.training.supervised import SupervisedLearner
from ytrain_api import JobFile
from ytrain_api.errors import SpecError
from ytrain_api.job import Spec
from ytrain_api.protocol import Facts


def train(
    job_file: JobFile, options: RunOptions, config: str, progress: Progress, stop: StopRequest, world: World
) -> dict[str, Any]:
    """Run the job to its end; returns what result.json records.

    Args:
        config: digest of what determines the result, recorded with it.
        stop: asked after every step.

    Raises:
        SpecError, DataError, TransientError: before anything was trained.
        TrainingError: training cannot go on.
        Preempted: `stop` asked for it; a checkpoint was saved.
    """
    spec, folder, watch = job_file.job.spec, options.folder, Stopwatch(progress)
    output = (
        OutputFolder(
            spec,
            config,
            run_identity(job_file.job),
            default=folder.output,
            base_dir=options.base_dir,
            claims=options.claims,
            run=folder,
        )
        if world.leads
        else None
    )
    with watch.phase("tokenising", "reading and tokenising the data"):
        inputs = inputs_of_run(job_file, options, progress, stop, world)
    device = choose_device(options.device)
    check_row_positions(spec, load_config(inputs.model.path), inputs)
    with watch.phase("loading", "loading the model"):
        dtype = choose_precision(spec.model.precision, device)
        models = load_models(spec, inputs, device=device, compute_dtype=dtype)
        if not folder.begun():
            check_packed_forward(models.current, packing=spec.data.packing, separable=spec.rl is None)
    with watch.phase("connecting", "meeting the other ranks"):
        world.connect(device)
        check_same_data(inputs, world)
    with watch.phase("preparing", "setting up the optimizer"):  # with DeepSpeed it takes seconds
        moves = engine(spec, models.current, world)
    evaluator = Evaluator(spec, inputs, models.current, models.start, moves, folder, world, progress)
    with ExitStack() as open_while_training:
        learner: Learner
        if spec.rl is not None:
            learner = open_while_training.enter_context(
                policy_learner(spec, inputs, models, moves, folder, world, progress)
            )
        else:
            learner = _supervised_learner(spec, inputs, models, moves, world)
        loop = _loop(spec, inputs, learner, evaluator, folder, progress, stop)
        with watch.phase("evaluating", "evaluating before training"):
            evaluator.before(loop.position.step, learner.total_steps)
        with watch.phase("training", "training"):
            position = loop.run()
    watch.move("saving", loop.saving_seconds, out_of="training")
    peak = peak_memory_bytes(device)
    with watch.phase("evaluating", "evaluating after training"):
        evaluator.after(position.step)
    with watch.phase("saving", "writing and verifying the output"), moves.whole():
        written = output.write(models.current, inputs, position, progress.activity) if output else None
        result = _result(job_file, inputs, models.current, position)
        world.wait()
    if written is None:
        return {}
    if written["verified"]["changeFromBase"] == 0.0:
        progress.note("the adapter gives the base model's logits: it learned nothing, or was never applied")
    filling = measure_filling(spec, inputs.train.dataset, device)
    estimate = estimated_bytes(
        spec,
        load_config(inputs.model.path),
        inputs.train.dataset,
        device=device,
        compute_dtype=dtype,
        ranks=world.size,
    )
    return result | {
        "ranks": world.size,
        "output": written,
        "packing": filling.to_json() if filling else None,
        "memory": {"estimatedBytes": estimate, "peakBytes": peak},
        "timing": watch.seconds,
        "digests": {"output": written["digest"], "data": position.data_digest, "config": config},
    }


def _supervised_learner(spec: Spec, inputs: Inputs, models: Models, moves: Engine, world: World) -> SupervisedLearner:
    return SupervisedLearner(
        model=models.current,
        engine=moves,
        objective=objective(spec),
        samples=inputs.train.dataset,
        plan=plan(spec, inputs.train.dataset),
        world=world,
        start=models.start() if chosen_method(spec).anchor_weight else None,
        teacher=models.teacher,
        selection=selection(spec, models),
    )


def _loop(
    spec: Spec,
    inputs: Inputs,
    learner: Learner,
    evaluator: Evaluator,
    folder: RunFolder,
    progress: Progress,
    stop: StopRequest,
) -> Loop:
    """The training loop, at the newest usable checkpoint or at the start."""
    optimization, world = spec.optimization, learner.world
    peak = peak_learning_rate(spec, learner.model.module.config.get_text_config().hidden_size)
    if optimization.learning_rate is None:
        kind = "a LoRA on a model of this width" if spec.model.lora else "a full training"
        progress.note(f"learning rate {peak:.2g}: the default for {kind}")
    data_digest = inputs.train.report.digest
    checkpoints = Checkpoints(
        folder.checkpoints, keep=spec.checkpoint.keep, saved=lambda saved: progress.found(Facts(checkpoint=saved))
    )
    position = Position(step=0, epoch=0.0, data_digest=data_digest, labels_trained=0)
    torch.manual_seed(optimization.seed + world.rank)
    newest = _newest_checkpoint(checkpoints, folder, world, progress)
    if newest is not None:
        position = read_position(newest)
        if position.data_digest != data_digest:
            raise SpecError(
                f"{newest}: was trained on other data than the job's sources hold now; "
                "put the data back, or start anew in another folder with --workdir"
            )
        restore(newest, learner.engine.load, world, optimization.seed)
        progress.note(f"going on from {newest.name}")
        progress.found(Facts(checkpoint=checkpoint_status(newest)))
    return Loop(
        learner=learner,
        settings=LoopSettings(
            learning_rate=lambda step, total: learning_rate(
                step, total, peak=peak, kind=optimization.schedule, warmup_fraction=optimization.warmup_fraction
            ),
            checkpoint_seconds=spec.checkpoint.every.seconds,
            checkpoint_steps=spec.checkpoint.every_steps,
            evaluate_steps=spec.evaluation.every_steps,
            data_digest=data_digest,
        ),
        checkpoints=checkpoints,
        metrics=MetricsLog(folder.path, after=position.step) if world.leads else None,
        progress=progress,
        stop=stop,
        evaluate=evaluator.during,
        position=position,
    )


def _newest_checkpoint(checkpoints: Checkpoints, folder: RunFolder, world: World, progress: Progress) -> Path | None:
    """The checkpoint that rank 0 found, in this rank's view of the folder."""
    newest = checkpoints.latest(progress.note) if world.leads else None
    name: str | None = world.agree(newest.name if newest else None)
    if name is None:
        return None
    path = folder.checkpoints / name
    if any(world.any(not path.is_dir())):
        raise SpecError(
            f"{folder.path}: rank 0 goes on from {name}, which another rank does not see; "
            "the work folder must be one that all workers share"
        )
    return path


def _result(job_file: JobFile, inputs: Inputs, model: LanguageModel, position: Position) -> dict[str, Any]:
    return {
        "job": job_file.job.metadata.name,
        "uid": job_file.job.metadata.uid,
        "state": "Succeeded",
        "step": position.step,
        "epoch": position.epoch,
        "base": {"source": job_file.job.spec.model.source, "revision": inputs.model.revision},
        "versions": {"ytrain": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "device": describe(model.device),
        "precision": str(model.compute_dtype).removeprefix("torch."),
        "parameters": {
            "total": sum(parameter.numel() for parameter in model.module.parameters()),
            "trainable": sum(parameter.numel() for parameter in model.trainable().values()),
        },
        "data": inputs.train.report.to_json(),
    }
