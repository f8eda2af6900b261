"""The training loop: step after step of what a learner learns, with metrics, checkpoints, evaluations and stops.

It owns the order of things; the learner says what a step is. Every rank runs it; what they decide, they decide
together.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ytrain.engine.base import Engine
from ytrain.engine.device import peak_memory_bytes
from ytrain.engine.world import World
from ytrain.models.language_model import LanguageModel
from ytrain.report.live import Progress
from ytrain.training.checkpoint import Checkpoints, Position
from ytrain.training.metrics import MetricsLog
from ytrain.training.stop import StopRequest
from ytrain_api.errors import Diverged, Preempted

DIVERGED_STEPS = 3
"""Steps in a row with a loss or gradient that is not finite after which a run ends."""

FINITE = ("loss", "weightedLoss", "gradientNorm")
"""Figures of a step that show whether it diverged."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a step came to, over all ranks."""

    figures: Mapping[str, Any]
    """For the step's line of metrics.jsonl: `loss`, `gradientNorm` (null where nothing was learned), and others."""
    labels: int
    """Tokens that were learned."""
    tokens: int
    """Tokens that were forwarded to learn them."""


class Learner(Protocol):
    """What a method does in an optimizer step. A step has a `number`, from 1, and `epoch`, the epochs done after it."""

    @property
    def model(self) -> LanguageModel: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def world(self) -> World: ...
    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        ...

    def steps(self, *, after: int) -> Iterator[Any]:
        """The steps behind number `after`; they depend on the job and its data alone."""
        ...

    def learn(self, step: Any, learning_rate: float) -> Learned:
        """Move the weights. All ranks call it; the result depends on weights, step and random states alone."""
        ...

    def places(self, step: Any) -> list[str]:
        """File and line of the records of a step."""
        ...


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
    """One run of training, from `position` to the learner's last step."""

    learner: Learner
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
        """Train to the last step; returns where it ended.

        Raises:
            Preempted: a stop was asked for; a checkpoint is saved.
            Diverged: the loss or the gradient is not finite for several steps.
            TrainingError: the disk is full.
        """
        try:
            self._run()
        finally:
            self.checkpoints.abandon()
        return self.position

    def _run(self) -> None:
        total, world = self.learner.total_steps, self.learner.world
        saved, saved_at = self.position, time.monotonic()
        self.learner.model.top.train()
        for step in self.learner.steps(after=self.position.step):
            self._train(step, total)
            self.checkpoints.raise_failure()
            interval = self.settings.checkpoint_steps
            late = time.monotonic() - saved_at >= self.settings.checkpoint_seconds
            due, stop = world.any(late and world.leads, bool(self.stop))
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
            self.checkpoints.save(self.position, self.learner.engine.state(), self.learner.world)

    def _finish_saving(self) -> None:
        with self._saving():
            self.checkpoints.finish(self.learner.world)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Time in which training waits for a checkpoint."""
        began = time.monotonic()
        self.progress.activity("saving")
        yield
        self.saving_seconds += time.monotonic() - began

    def _train(self, step: Any, total: int) -> None:
        began = time.monotonic()
        rate = self.settings.learning_rate(step.number, total)
        learned = self.learner.learn(step, rate)
        seconds = time.monotonic() - began
        line = {
            "step": step.number,
            "epoch": round(step.epoch, 6),
            **learned.figures,
            "learningRate": rate,
            "tokens": learned.tokens,
            "tokensPerSecond": learned.tokens / seconds,
            "seconds": seconds,
            "peakMemoryBytes": peak_memory_bytes(self.learner.model.device),
        }
        self._watch_divergence(line, step)
        if self.metrics is not None:
            self.metrics.add(line, wall_time=time.time())
        self.progress.step(line, total)
        self.position = Position(
            step=step.number,
            epoch=step.epoch,
            data_digest=self.settings.data_digest,
            labels_trained=self.position.labels_trained + learned.labels,
        )

    def _watch_divergence(self, line: dict[str, Any], step: Any) -> None:
        """Numbers that are not finite become null in the record; the engine took no update from them."""
        bad = [name for name in FINITE if line.get(name) is not None and not math.isfinite(line[name])]
        line.update(dict.fromkeys(bad))
        self._bad_steps = self._bad_steps + 1 if bad else 0
        if self._bad_steps < DIVERGED_STEPS:
            return
        places = self.learner.places(step)
        shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        raise Diverged(
            f"{' and '.join(bad)} not finite in {DIVERGED_STEPS} steps in a row (last: step {step.number}, "
            f"samples {shown}); no update was taken from them. Lower optimization.learningRate (now "
            f"{line['learningRate']:.1e} at this step) or set model.precision: float32, and look at these samples"
        )
