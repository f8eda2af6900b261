"""The training loop: forward and backward over the rows of a step, one weight update, metrics, checkpoints, stops.

It owns the order of things; the plan says what a step holds, the objective what is minimised, the engine how weights
move. Every rank runs it, on its own rows; what they decide, they decide together.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ytrain.data.rows import Samples, build_row
from ytrain.engine.base import Engine
from ytrain.engine.device import peak_memory_bytes
from ytrain.engine.world import World
from ytrain.models.language_model import HiddenStates, LanguageModel
from ytrain.objective.head import Objective, Reference, RowStatistics, objective_sum
from ytrain.report.live import Progress
from ytrain.training.checkpoint import Checkpoints, Position
from ytrain.training.metrics import MetricsLog, weight_histogram
from ytrain.training.plan import Plan, Step
from ytrain.training.selection import Selection
from ytrain.training.stop import StopRequest
from ytrain_api.errors import Preempted, TrainingError

DIVERGED_STEPS = 3
"""Steps in a row with a loss or gradient that is not finite after which a run ends."""


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """What is trained, and what it is compared with."""

    model: LanguageModel
    engine: Engine
    objective: Objective
    samples: Samples
    world: World = field(default_factory=World)
    start: HiddenStates | None = None
    """Needed with an anchor."""
    teacher: HiddenStates | None = None
    """Needed with a teacher share."""
    selection: Selection | None = None
    """Trains some tokens of each step alone."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """When things happen in a run."""

    learning_rate: Callable[[int, int], float]
    """Rate of a step, given the step's number and the total."""
    checkpoint_seconds: float
    checkpoint_steps: int | None
    evaluate_steps: int | None
    data_digest: str


@dataclass(kw_only=True)
class Loop:
    """One run of training, from `position` to the end of the plan."""

    trainee: Trainee
    plan: Plan
    settings: LoopSettings
    checkpoints: Checkpoints
    metrics: MetricsLog | None
    """Absent in the ranks that do not lead."""
    progress: Progress
    stop: StopRequest
    evaluate: Callable[[int], None]
    """Called with the step's number every `evaluate_steps`."""
    position: Position
    saving_seconds: float = field(default=0.0, init=False)
    """In which training waited for checkpoints; most of their writing happens beside it."""
    _bad_steps: int = field(default=0, init=False)

    def run(self) -> Position:
        """Train to the end of the plan; returns where it ended.

        Raises:
            Preempted: a stop was asked for; a checkpoint is saved.
            TrainingError: the loss diverged, or the disk is full.
        """
        try:
            self._run()
        finally:
            self.checkpoints.abandon()
        return self.position

    def _run(self) -> None:
        total = self.plan.total_steps
        saved, saved_at = self.position, time.monotonic()
        self.trainee.model.top.train()
        for step in self.plan.steps(after=self.position.step):
            self._train(step, total)
            self.checkpoints.raise_failure()
            interval = self.settings.checkpoint_steps
            late = time.monotonic() - saved_at >= self.settings.checkpoint_seconds
            due, stop = self.trainee.world.any(late and self.trainee.world.leads, bool(self.stop))
            if step.number < total and (due or stop or (interval and step.number % interval == 0)):
                self._save()
                saved, saved_at = self.position, time.monotonic()
            if stop and step.number < total:
                self._finish_saving()
                by = f" by {self.stop.signal.name}" if self.stop.signal else ""
                raise Preempted(f"stopped{by} after step {step.number} of {total}")
            every = self.settings.evaluate_steps
            if every and step.number % every == 0 and step.number < total:
                self.progress.activity("evaluating")
                self.evaluate(step.number)
        if saved != self.position:
            self._save()
        self._finish_saving()

    def _save(self) -> None:
        """Begin a checkpoint of where the run is."""
        with self._saving():
            if self.metrics is not None:
                self.metrics.sync()
            self.checkpoints.save(self.position, self.trainee.engine.state(), self.trainee.world)

    def _finish_saving(self) -> None:
        with self._saving():
            self.checkpoints.finish(self.trainee.world)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Time in which training waits for a checkpoint."""
        began = time.monotonic()
        self.progress.activity("saving")
        yield
        self.saving_seconds += time.monotonic() - began

    def _train(self, step: Step, total: int) -> None:
        began = time.monotonic()
        trainee = self.trainee
        figures, waited = self._rows(step)
        loss_sum, weighted_sum, weight_sum, tokens, *histogram = trainee.world.sum(figures)
        # The mean weight is known only now; the gradient is linear in it.
        scale = step.labels / max(weight_sum, 1e-12) if trainee.objective.rescale else 1.0
        rate = self.settings.learning_rate(step.number, total)
        norm = trainee.engine.step(learning_rate=rate, gradient_scale=scale)
        seconds = time.monotonic() - began
        line = {
            "step": step.number,
            "epoch": round(step.epoch, 6),
            "loss": loss_sum / step.labels,
            "weightedLoss": scale * weighted_sum / step.labels,
            "learningRate": rate,
            "gradientNorm": norm,
            "supervisedTokens": step.labels,
            "tokens": int(tokens),
            "tokensPerSecond": tokens / seconds,
            "seconds": seconds,
            "dataWaitSeconds": waited,
            "peakMemoryBytes": peak_memory_bytes(trainee.model.device),
            "weightHistogram": [int(count) for count in histogram],
        }
        self._watch_divergence(line, step)
        if self.metrics is not None:
            self.metrics.add(line, wall_time=time.time())
        self.progress.step(line, total)
        self.position = Position(
            step=step.number,
            epoch=step.epoch,
            data_digest=self.settings.data_digest,
            labels_trained=self.position.labels_trained + step.labels,
        )

    def _rows(self, step: Step) -> tuple[list[float], float]:
        """Forward and backward over this rank's rows.

        Returns the sums of loss, weighted loss and weight over their labels, their tokens, and the histogram of the
        weights; and the seconds of waiting for them.
        """
        trainee, device = self.trainee, self.trainee.model.device
        rows, waited, tokens = step.share(trainee.world.rank, trainee.world.size), 0.0, 0
        # Where ranks communicate in every pass, one without a row left repeats another's, which counts for nothing.
        repeated = step.most_rows(trainee.world.size) - len(rows) if trainee.engine.lockstep else 0
        passes = [*rows, *step.rows[:1] * repeated]
        choice = None
        if trainee.selection is not None:
            built = [build_row(trainee.samples, segments).to(device) for segments in passes]
            choice = trainee.selection.choose(trainee.model, trainee.engine, built, len(rows), trainee.world)
        weighted = torch.zeros((), device=device)
        loss_R, weight_R = [torch.zeros(0, device=device)], [torch.zeros(0, device=device)]
        for number, segments in enumerate(passes, start=1):
            row_began = time.monotonic()
            row = build_row(trainee.samples, segments).to(device)
            waited += time.monotonic() - row_began
            if choice is not None:
                row = choice.narrowed(row, number - 1)
            loss, statistics = trainee.engine.forward(partial(_row_objective, trainee, row))
            counts = number <= len(rows)
            trainee.engine.backward(loss / step.labels if counts else 0.0 * loss, last=number == len(rows) + repeated)
            if counts:
                weighted += loss.detach()
                loss_R.append(statistics.loss_R if choice is None else choice.losses[number - 1])
                weight_R += [
                    statistics.weight_R,
                    torch.zeros(len(loss_R[-1]) - len(statistics.weight_R), device=device),
                ]
                tokens += row.tokens
        losses, weights = torch.cat(loss_R), torch.cat(weight_R)
        sums = [losses.sum().item(), weighted.item(), weights.sum().item(), float(tokens)]
        return sums + [float(count) for count in weight_histogram(weights)], waited

    def _watch_divergence(self, line: dict[str, Any], step: Step) -> None:
        """Numbers that are not finite become null in the record; the engine took no update from them."""
        bad = [name for name in ("loss", "weightedLoss", "gradientNorm") if not math.isfinite(line[name])]
        line.update(dict.fromkeys(bad))
        self._bad_steps = self._bad_steps + 1 if bad else 0
        if self._bad_steps < DIVERGED_STEPS:
            return
        places = sorted({_place(self.trainee.samples, segment.sample) for row in step.rows for segment in row})
        shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        raise TrainingError(
            f"{' and '.join(bad)} not finite in {DIVERGED_STEPS} steps in a row (last: step {step.number}, "
            f"samples {shown}); no update was taken from them. Lower optimization.learningRate (now "
            f"{line['learningRate']:.1e} at this step) or set model.precision: float32, and look at these samples"
        )


def _row_objective(trainee: Trainee, row: Any) -> tuple[torch.Tensor, RowStatistics]:
    start, teacher = (
        None
        if reference is None
        else Reference(hidden_RD=reference.hidden(row)[row.label_rows_R], head=reference.head())
        for reference in (trainee.start, trainee.teacher)
    )
    hidden_RD = trainee.model.hidden(row)[row.label_rows_R]
    return objective_sum(hidden_RD, row.labels_R, trainee.model.head(), trainee.objective, start=start, teacher=teacher)


def _place(samples: Any, index: int) -> str:
    sample = samples[index]
    return f"{sample.source}:{sample.line}"
