"""Ranks in processes of their own that train small models with every engine, one run after another.

What a run leaves behind is what the command line's leaves: metrics.jsonl and checkpoints, which the tests compare.
"""

import gc
import json
import math
import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from small_models import random_model, random_samples, segments
from tests.ports import held_port

from ytrain.data.rows import build_row
from ytrain.engine.base import Engine, OptimizerSettings
from ytrain.engine.deepspeed_engine import DeepSpeedEngine
from ytrain.engine.torch_engine import TorchEngine
from ytrain.engine.world import World
from ytrain.models.language_model import FrozenModel, LanguageModel, StartModel
from ytrain.models.lora import add_adapter
from ytrain.objective import weights
from ytrain.objective.head import Objective, label_losses
from ytrain.report.live import open_progress
from ytrain.training.checkpoint import Checkpoints, Position, read_position, restore
from ytrain.training.loop import Loop, LoopSettings
from ytrain.training.metrics import MetricsLog
from ytrain.training.plan import Plan
from ytrain.training.selection import Selection
from ytrain.training.stop import StopRequest
from ytrain.training.supervised import SupervisedLearner
from ytrain_api.optimization import Deepspeed

PATIENCE_SECONDS = 900
HELD = ExitStack()
"""Ports where ranks meet, until this process ends."""
PARTITIONED = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
"""Without it, ZeRO keeps weights of this size whole."""

BLOCKS: dict[str, dict[str, Any] | None] = {
    "torch": None,
    "zero0": {"zeroStage": 0},
    "zero1": {"zeroStage": 1},
    "zero2": {"zeroStage": 2},
    "zero1-offload": {"zeroStage": 1, "offload": "optimizer"},
    "zero2-offload": {"zeroStage": 2, "offload": "optimizer"},
    "zero3-kept": {"zeroStage": 3},
    "zero3": {"zeroStage": 3, "config": PARTITIONED},
    "zero3-offload": {"zeroStage": 3, "offload": "parameters", "config": PARTITIONED},
}
"""`spec.deepspeed` of the job, or none."""

ODD = {"hidden_size": 33, "intermediate_size": 47, "num_attention_heads": 3, "num_key_value_heads": 1}
"""Most weights have no equal parts on two ranks."""

SMALL = {"num_hidden_layers": 1}
USUAL = {"clip": 0.5, "decay": 0.1, "rescale": True}

RUNS: dict[str, dict[str, Any]] = {
    "full": {"model": ODD, **USUAL},
    "free": {"model": {**ODD, **SMALL}, "clip": 0.0, "decay": 0.0, "rescale": False},
    "tied": {"model": {**SMALL, "tie_word_embeddings": True}, **USUAL, "recompute": True},
    "lora": {"model": {**ODD, **SMALL}, **USUAL, "targets": ["q_proj", "down_proj"]},
    "chosen": {  # as cpt has it: steps of full rows, of which the tokens worth learning are trained
        "model": {**ODD, **SMALL},
        **USUAL,
        "keep": 0.4,
        "plan": {"batch_sequences": None, "batch_tokens": 64, "step_row_tokens": 32, "packing": True},
    },
    "lora-bfloat16": {"model": SMALL, **USUAL, "targets": ["v_proj"], "dtype": torch.bfloat16},
}


def train(run: str, block: str, folder: Path, resume: Path | None = None, *, world: World) -> None:
    """Three steps, as a rule of 3, 2 and 3 rows; with a checkpoint to go on from, what is left of them."""
    settings = RUNS[run]
    samples, model = random_samples(), prepare(settings)
    engine = make_engine(block, model, settings, world)
    position = Position(step=0, epoch=0.0, data_digest="", labels_trained=0)
    if resume is not None:
        position = read_position(resume)
        restore(resume, engine.load, world, 0)
    folder.mkdir(parents=True, exist_ok=True)
    evaluations: list[float] = []

    def evaluate(step: int) -> None:
        with engine.whole():
            if world.leads:  # alone, as when the output is written
                evaluations.append(mean_loss(model))

    loop = Loop(
        learner=SupervisedLearner(
            model=model,
            engine=engine,
            objective=Objective(
                weigh=weights.nlirg(), rescale=settings["rescale"], anchor_weight=0.1 if model.peft else 0.0
            ),
            samples=samples,
            world=world,
            start=StartModel(model) if model.peft else None,
            selection=Selection(reference=FrozenModel(random_model(hidden_size=16, head_dim=4)), keep_fraction=keep)
            if (keep := settings.get("keep"))
            else None,
            plan=Plan(
                lengths=np.array([len(sample.input_ids) for sample in samples]),
                label_counts=np.array([sample.supervised.sum() for sample in samples]),
                **{
                    "seed": 1, "epochs": 2, "max_steps": 3, "batch_tokens": None, "batch_sequences": 3,
                    "row_tokens": 64, "packing": False, "window_tokens": None,
                } | settings.get("plan", {}),
            ),
        ),
        settings=LoopSettings(
            learning_rate=lambda step, total: 1e-3 * step,
            checkpoint_seconds=math.inf,
            checkpoint_steps=1,
            evaluate_steps=2,
            data_digest="",
        ),
        checkpoints=Checkpoints(folder / "checkpoints", keep=3),
        metrics=MetricsLog(folder, after=position.step) if world.leads else None,
        progress=open_progress(Console(quiet=True)),
        stop=StopRequest(),
        evaluate=evaluate,
        position=position,
    )  # fmt: skip
    evaluate(0)
    loop.run()
    evaluate(3)
    if world.leads:
        (folder / "evaluations.json").write_text(json.dumps(evaluations))
    world.wait()


def prepare(settings: Mapping[str, Any]) -> LanguageModel:
    """The model of a run, at its start."""
    model = random_model(**settings["model"])
    dtype = settings.get("dtype", torch.float32)
    model = LanguageModel(model.module.to(dtype), compute_dtype=dtype)
    if "targets" in settings:
        model = add_adapter(model, rank=3, alpha=6, dropout=0.0, targets=settings["targets"], seed=7)
        for name, parameter in model.trainable().items():  # as after some training: an adapter begins at zero
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    if settings.get("recompute"):
        model.module.activation_checkpointing_enable({"use_reentrant": False})
    return model


def make_engine(block: str, model: LanguageModel, settings: Mapping[str, Any], world: World) -> Engine:
    optimizer = OptimizerSettings(weight_decay=settings["decay"], gradient_clip=settings["clip"])
    spec = BLOCKS[block]
    if spec is None:
        return TorchEngine(model.trainable(), optimizer, world)
    head = model.head().weight_VD
    assert isinstance(head, torch.nn.Parameter)
    return DeepSpeedEngine(
        model.top, model.trainable(), optimizer, world, Deepspeed.model_validate(spec), outside=[head]
    )


def mean_loss(model: LanguageModel) -> float:
    """-log p of every label of the samples."""
    samples = random_samples()
    total, labels = 0.0, 0
    with model.evaluating():
        for segment in segments(samples):
            row = build_row(samples, [segment])
            loss_R, _ = label_losses(model.hidden(row)[row.label_rows_R], row.labels_R, model.head())
            total, labels = total + loss_R.sum().item(), labels + len(loss_R)
    return total / labels


def overflow(block: str, folder: Path, *, world: World) -> None:
    """A step whose gradient is not finite on one rank, between two that are."""
    model = prepare(RUNS["full"])
    engine = make_engine(block, model, RUNS["full"], world)
    samples = random_samples()
    rows = [build_row(samples, [segment]) for segment in segments(samples)[: world.size]]
    row = rows[world.rank]

    def loss() -> torch.Tensor:
        hidden = model.hidden(row)[row.label_rows_R]
        return torch.nn.functional.cross_entropy(hidden @ model.head().weight_VD.T, row.labels_R)

    norms, states = [], []
    for factor in (1.0, math.nan if world.rank == world.size - 1 else 1.0, 1.0):
        engine.backward(factor * engine.forward(loss), last=True)
        norms.append(engine.step(learning_rate=1e-3))
        states.append({name: tensor.clone() for name, tensor in engine.state()})
    before, skipped, after = states
    result = {
        "norms": [norm if math.isfinite(norm) else None for norm in norms],
        "kept": all(torch.equal(before[name], skipped[name]) for name in before),
        "went on": all(not torch.equal(before[name], after[name]) for name in before),
    }
    if world.leads:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "overflow.json").write_text(json.dumps(result))


def run_ranks(size: int, tasks: Sequence[tuple[Any, ...]]) -> list[multiprocessing.process.BaseProcess]:
    """Start the processes; each runs `(function, *arguments)` of every task, with its world as the last argument."""
    port = HELD.enter_context(held_port())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # the libraries are loaded once
    ranks = [context.Process(target=_rank, args=(rank, size, port, tasks), daemon=True) for rank in range(size)]
    for rank in ranks:
        rank.start()
    return list(ranks)


def wait_for(ranks: Sequence[multiprocessing.process.BaseProcess]) -> list[int | None]:
    """Their exit codes; those that hang are killed."""
    for rank in ranks:
        rank.join(PATIENCE_SECONDS)
        if rank.is_alive():
            rank.kill()
            rank.join()
    return [rank.exitcode for rank in ranks]


def _rank(rank: int, size: int, port: int, tasks: Sequence[tuple[Any, ...]]) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # DeepSpeed collects garbage for every engine, and need not look at the libraries
    if size > 1:
        os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = World(rank, size)
    world.connect(torch.device("cpu"))
    code = 0
    try:
        for function, *arguments in tasks:
            function(*arguments, world=world)
        world.wait()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the other rank may wait in a collective that this one never comes to
