"""Learning from rewards: a step samples answers to its prompts, scores them, and makes good ones likelier.

No step depends on the one before but through the weights, so a run resumes exactly, and any number of ranks samples the
same answers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ytrain.data.packing import pack
from ytrain.data.rows import Row
from ytrain.engine.base import Engine
from ytrain.engine.world import World
from ytrain.models.language_model import HiddenStates, LanguageModel
from ytrain.objective.head import Objective, Reference, RowStatistics, divergence, objective_sum
from ytrain.objective.policy import PolicyWeight
from ytrain.objective.weights import WeightFunction
from ytrain.rl.credit import Group, weigh
from ytrain.rl.figures import Trace, step_figures
from ytrain.rl.layout import Layout, idle_layout, lay_out, parts, tree_row
from ytrain.rl.prompts import Prompt, Prompts
from ytrain.rl.rewards import Failure, RewardService, Sample
from ytrain.rl.rollout import Request, Rolled, RolloutEngine
from ytrain.rl.sampler import at_temperature
from ytrain.rl.tree import ENTROPY_DECIMALS
from ytrain.rl.watch import Watch
from ytrain.training.loop import Learned
from ytrain.training.plan import Plan, Step
from ytrain.training.selection import keys, largest
from ytrain_api.rl import Objective as ObjectiveSettings

TOP_ENTROPY_SHARE = 0.2
"""Share of a step's tokens that the entropy gate keeps: those of highest entropy (arXiv 2506.01939)."""


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """A row of trees and what its labels weigh."""

    row: Row
    weight: PolicyWeight
    mass_R: Tensor

    def to(self, device: torch.device) -> "TrainedRow":
        """On the device, one at a time: its mask may be large."""
        tensors = {name: getattr(self.weight, name).to(device) for name in ("gain_R", "blame_R", "sampled_log_p_R")}
        return TrainedRow(
            row=self.row.to(device), weight=replace(self.weight, **tensors), mass_R=self.mass_R.to(device)
        )


@dataclass(kw_only=True)
class PolicyLearner:
    """Trains a policy by the rewards of what it samples."""

    model: LanguageModel
    engine: Engine
    world: World
    plan: Plan
    """Of which a step's segments name the prompts, and nothing else counts."""
    prompts: Prompts
    rollout: RolloutEngine
    rewards: RewardService
    settings: ObjectiveSettings
    """With an advantage that is not `auto`."""
    gate: WeightFunction | None
    """The token weight of `gate: nlirg`."""
    temperature: float
    updates: int
    row_tokens: int
    seed: int
    decode: Callable[[Any], str]
    start: HiddenStates | None
    """What the distance to the start is measured by, where that costs no second model, and what an anchor holds to."""
    watch: Watch
    keep: Callable[[Step, Prompt, Group], None] = lambda *_: None
    """Hears of one group of each step, for the report."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.plan.total_steps

    def steps(self, *, after: int) -> Iterator[Step]:
        """The steps behind number `after`."""
        return self.plan.steps(after=after)

    def places(self, step: Step) -> list[str]:
        """File and line of the records of a step."""
        return sorted({self.prompts[index].place for index in _indices(step)})

    def learn(self, step: Step, learning_rate: float) -> Learned:
        """Sample, score, and update the weights `updates` times."""
        began = time.monotonic()
        indices = self.world.share(_indices(step))
        asked = [self.prompts[index] for index in indices]
        rolled = self.rollout.sample(
            [Request(prompt.ids, (self.seed, step.number, index)) for prompt, index in zip(asked, indices, strict=True)]
        )
        sampled = time.monotonic()
        groups = self._score(asked, rolled)
        scored = time.monotonic()
        if self.world.leads and groups:
            self.keep(step, asked[0], groups[0])
        trained = [group for group in groups if group.rewards]
        if self.settings.skip_uniform_groups:
            trained = [group for group in trained if group.is_mixed]
        rows, labels = self._rows(trained)
        labels_of_all, mixed, trained_of_all = self.world.sum(
            [labels, float(sum(group.is_mixed for group in groups)), float(len(trained))]
        )
        figures: dict[str, Any] = {"loss": None, "gradientNorm": None}
        trace = Trace()
        passes = [*rows, *self._idle_rows(len(rows))]
        if labels_of_all > 0:
            for update in range(self.updates):
                trace = self._forward_and_backward(passes, labels_of_all, first=update == 0, before=trace)
                norm = self.engine.step(learning_rate=learning_rate)
            (loss,) = self.world.sum([trace.loss])
            figures = {"loss": loss / labels_of_all, "gradientNorm": norm}
        rl = step_figures(groups, rolled, trace, labels_of_all, self.updates, self.world)
        rl |= {
            "trainedGroups": int(trained_of_all),
            "mixedPerThousandTokens": 1000 * mixed / max(1.0, rl["sampledTokens"]),
            "sampleSeconds": sampled - began,
            "rewardSeconds": scored - sampled,
        }
        self.watch.see(step, rl, groups)
        (tokens,) = self.world.sum([float(sum(row.row.tokens for row in rows) * self.updates)])
        return Learned(
            figures=figures | {"supervisedTokens": int(labels_of_all), "rl": rl},
            labels=int(labels_of_all),
            tokens=int(tokens) + rl["forwardedTokens"],
        )

    def _score(self, asked: Sequence[Prompt], rolled: Rolled) -> list[Group]:
        samples, places = [], []
        for number, (prompt, tree) in enumerate(zip(asked, rolled.trees, strict=True)):
            for leaf in tree.leaves:
                ids = tree.answer(leaf)
                places.append((number, leaf))
                samples.append(Sample(prompt.text, self.decode(ids), prompt.record, len(ids)))
        outcomes: list[dict[int, float | Failure]] = [{} for _ in asked]
        for (number, leaf), outcome in zip(places, self.rewards.score(samples), strict=True):
            outcomes[number][leaf] = outcome
        return [Group(tree, of_leaves) for tree, of_leaves in zip(rolled.trees, outcomes, strict=True)]

    def _rows(self, groups: Sequence[Group]) -> tuple[list[TrainedRow], float]:
        """This rank's rows, and the number of labels that they stand for, each branch counted."""
        weights = weigh(groups, self.settings.advantage, self.world)
        layouts = [
            lay_out(group.tree, leaves, of_branches)
            for group, of_branches in zip(groups, weights, strict=True)
            for leaves in parts(group.tree, list(group.rewards), self.row_tokens)
        ]
        limit = self._entropy_limit(groups)
        lengths = [layout.tokens for layout in layouts]
        packed = pack(lengths, max(self.row_tokens, *lengths)) if layouts else []
        rows = [self._row([layouts[i] for i in members], limit) for members in packed]
        return rows, float(sum(layout.mass_R.sum() for layout in layouts))

    def _idle_rows(self, rows: int) -> list[TrainedRow]:
        """What this rank forwards in place of the rows that it has fewer than another, where all go in lockstep."""
        if not self.engine.lockstep:
            return []
        return [self._row([idle_layout()], None)] * (max(self.world.gather(rows)) - rows)

    def _entropy_limit(self, groups: Sequence[Group]) -> np.uint32 | None:
        """What a token's entropy must reach to pass the gate; all ranks call it. Every token counts once, however its
        tree is parted."""
        if self.settings.gate != "entropy":
            return None
        entropies = [np.zeros(0, np.float32)]
        for group in groups:
            trained = {node for leaf in group.rewards for node in group.tree.path(leaf)}
            entropies += [group.tree.nodes[node].entropy for node in sorted(trained)]
        return largest(np.concatenate(entropies).round(ENTROPY_DECIMALS), TOP_ENTROPY_SHARE, self.world)

    def _row(self, layouts: Sequence[Layout], limit: np.uint32 | None) -> TrainedRow:
        sampled, entropies, gain, blame, mass = (
            np.concatenate([getattr(layout, name) for layout in layouts]).astype(np.float32)
            for name in ("sampled_log_p_R", "entropy_R", "gain_R", "blame_R", "mass_R")
        )
        gate = np.ones_like(gain)
        if limit is not None:
            gate = (keys(entropies.round(ENTROPY_DECIMALS)) >= limit).astype(np.float32)
        elif self.gate is not None:
            gate = self.gate(torch.from_numpy(-sampled)).numpy()
        weight = PolicyWeight(
            gain_R=torch.from_numpy(gain * gate),
            blame_R=torch.from_numpy(blame * gate),
            sampled_log_p_R=torch.from_numpy(sampled),
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
        )
        return TrainedRow(row=tree_row(layouts), weight=weight, mass_R=torch.from_numpy(mass))

    def _forward_and_backward(self, rows: Sequence[TrainedRow], labels: float, *, first: bool, before: Trace) -> Trace:
        """The gradient of an update. The first one, whose policy is the one that sampled, shows gap and distance."""
        trace = Trace() if first else before
        for number, on_cpu in enumerate(rows):
            row = on_cpu.to(self.model.device)
            # Without an anchor the distance costs a forward pass of its own: one row of each rank is enough.
            measured = first and number == 0 and self.start is not None
            loss, statistics, kl_R = self.engine.forward(partial(self._objective, row, measured))
            self.engine.backward(loss / labels, last=number == len(rows) - 1)
            loss_R = statistics.loss_R
            trace.clipped += float((row.mass_R * row.weight.clipped(loss_R)).sum())
            if not first:
                continue
            trace.loss += float(row.weight.surrogate(loss_R).sum())
            gap_R = (-loss_R - row.weight.sampled_log_p_R).abs().where(row.mass_R > 0, 0.0)
            trace.gap += float((row.mass_R * gap_R).sum())
            trace.largest_gap = max(trace.largest_gap, float(gap_R.max()))
            if kl_R is not None:
                trace.distance += float((row.mass_R * kl_R).sum())
                trace.distance_labels += float(row.mass_R.sum())
        return trace

    def _objective(self, trained: TrainedRow, measured: bool) -> tuple[Tensor, RowStatistics, Tensor | None]:
        """The loss of a row, and KL(now || start) of its labels where it is `measured`, or anchors them."""
        row, anchor, start = trained.row, self.settings.base_anchor, None
        if anchor is not None or measured:
            assert self.start is not None
            start = Reference(
                hidden_RD=self.start.hidden(row)[row.label_rows_R],
                head=at_temperature(self.start.head(), self.temperature),
            )
        now = Reference(
            hidden_RD=self.model.hidden(row)[row.label_rows_R], head=at_temperature(self.model.head(), self.temperature)
        )
        objective = Objective(
            weigh=trained.weight, anchor_weight=anchor.weight if anchor else 0.0, anchor_mass_R=trained.mass_R
        )
        loss, statistics = objective_sum(now.hidden_RD, row.labels_R, now.head, objective, start=start)
        if anchor is not None or start is None:
            return loss, statistics, statistics.anchor_R
        return loss, statistics, divergence(start.hidden_RD, start.head, now)


def _indices(step: Step) -> list[int]:
    return [segment.sample for row in step.rows for segment in row]
