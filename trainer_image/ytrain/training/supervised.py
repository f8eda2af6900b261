"""Learning given tokens (sft, cpt): forward and backward over the rows of a step, and one weight update.

The plan says what a step holds, the objective what is minimised, the engine how weights move.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ytrain.data.rows import Row, Samples, build_row
from ytrain.engine.base import Engine
from ytrain.engine.world import World
from ytrain.models.language_model import HiddenStates, LanguageModel
from ytrain.objective.head import Objective, Reference, RowStatistics, objective_sum
from ytrain.training.loop import Learned
from ytrain.training.metrics import weight_histogram
from ytrain.training.plan import Plan, Step
from ytrain.training.selection import Selection


@dataclass(frozen=True, kw_only=True)
class SupervisedLearner:
    """What is trained, on what, and what it is compared with."""

    model: LanguageModel
    engine: Engine
    objective: Objective
    samples: Samples
    plan: Plan
    world: World = field(default_factory=World)
    start: HiddenStates | None = None
    """Needed with an anchor."""
    teacher: HiddenStates | None = None
    """Needed with a teacher share."""
    selection: Selection | None = None
    """Trains some tokens of each step alone."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.plan.total_steps

    def steps(self, *, after: int) -> Iterator[Step]:
        """The steps behind number `after`."""
        return self.plan.steps(after=after)

    def learn(self, step: Step, learning_rate: float) -> Learned:
        """Train on the rows of the step."""
        figures, waited = self._rows(step)
        loss_sum, weighted_sum, weight_sum, tokens, *histogram = self.world.sum(figures)
        # The mean weight is known only now; the gradient is linear in it.
        scale = step.labels / max(weight_sum, 1e-12) if self.objective.rescale else 1.0
        norm = self.engine.step(learning_rate=learning_rate, gradient_scale=scale)
        return Learned(
            figures={
                "loss": loss_sum / step.labels,
                "weightedLoss": scale * weighted_sum / step.labels,
                "gradientNorm": norm,
                "supervisedTokens": step.labels,
                "dataWaitSeconds": waited,
                "weightHistogram": [int(count) for count in histogram],
            },
            labels=step.labels,
            tokens=int(tokens),
        )

    def places(self, step: Step) -> list[str]:
        """File and line of the samples of a step."""
        samples: Any = self.samples
        used = [samples[segment.sample] for row in step.rows for segment in row]
        return sorted({f"{sample.source}:{sample.line}" for sample in used})

    def _rows(self, step: Step) -> tuple[list[float], float]:
        """Forward and backward over this rank's rows.

        Returns the sums of loss, weighted loss and weight over their labels, their tokens, and the histogram of the
        weights; and the seconds of waiting for them.
        """
        world, device = self.world, self.model.device
        rows, waited, tokens = step.share(world.rank, world.size), 0.0, 0
        # Where ranks communicate in every pass, one without a row left repeats another's, which counts for nothing.
        repeated = step.most_rows(world.size) - len(rows) if self.engine.lockstep else 0
        passes = [*rows, *step.rows[:1] * repeated]
        choice = None
        if self.selection is not None:
            built = [build_row(self.samples, segments, device) for segments in passes]
            choice = self.selection.choose(self.model, self.engine, built, len(rows), world)
        weighted = torch.zeros((), device=device)
        loss_R, weight_R = [torch.zeros(0, device=device)], [torch.zeros(0, device=device)]
        for number, segments in enumerate(passes, start=1):
            row_began = time.monotonic()
            row = build_row(self.samples, segments, device)
            waited += time.monotonic() - row_began
            if choice is not None:
                row = choice.narrowed(row, number - 1)
            loss, statistics = self.engine.forward(partial(self._objective, row))
            counts = number <= len(rows)
            self.engine.backward(loss / step.labels if counts else 0.0 * loss, last=number == len(rows) + repeated)
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

    def _objective(self, row: Row) -> tuple[torch.Tensor, RowStatistics]:
        start, teacher = (
            None
            if reference is None
            else Reference(hidden_RD=reference.hidden(row)[row.label_rows_R], head=reference.head())
            for reference in (self.start, self.teacher)
        )
        hidden_RD = self.model.hidden(row)[row.label_rows_R]
        return objective_sum(hidden_RD, row.labels_R, self.model.head(), self.objective, start=start, teacher=teacher)
