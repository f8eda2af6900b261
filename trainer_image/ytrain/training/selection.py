"""Chooses the tokens of a step that are worth learning: those whose loss is most above a reference model's.

Source: Rho-1, arXiv 2404.07965. The choice is made among all tokens of the global step, before any of them is trained,
so that it depends neither on the packing nor on the number of ranks; that costs a forward pass of each model more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ytrain.data.rows import Row
from ytrain.engine.base import Engine
from ytrain.engine.world import World
from ytrain.models.language_model import HiddenStates, LanguageModel
from ytrain.objective.head import label_losses

DIGIT_BITS = 8
"""Bits of a value that the ranks settle at a time."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Keeps the `keep_fraction` of a step's tokens with the largest loss above the reference's."""

    reference: HiddenStates
    keep_fraction: float

    def choose(self, model: LanguageModel, engine: Engine, rows: Sequence[Row], counted: int, world: World) -> "Choice":
        """What this rank's rows keep; all ranks call it.

        Args:
            counted: rows from the beginning that take part; the others are passed over for the sake of lockstep.
        """
        losses, excesses = [], [torch.zeros(0)]
        with model.evaluating():
            for number, row in enumerate(rows):
                loss_R = engine.forward(lambda row=row: _losses(model, row))  # type: ignore[misc]
                losses.append(loss_R)
                if number < counted:
                    excesses.append((loss_R - _losses(self.reference, row)).cpu())
        limit = largest(torch.cat(excesses).numpy(), self.keep_fraction, world)
        return Choice(losses, [torch.from_numpy(keys(excess.numpy()) >= limit) for excess in excesses[1:]])


@dataclass(frozen=True)
class Choice:
    """The losses of every row's labels, and, of the rows that count, which labels are kept."""

    losses: list[Tensor]
    kept: list[Tensor]

    def narrowed(self, row: Row, number: int) -> Row:
        """The row with the labels that are kept."""
        if number >= len(self.kept):
            return row
        kept_R = self.kept[number].to(row.labels_R.device)
        return row.with_labels(kept_R)


def largest(values: npt.NDArray[np.float32], fraction: float, world: World) -> np.uint32:
    """The key (`keys`) that `fraction` of all ranks' values reach, the nearest number of them, at least one.

    Found digit by digit, by counting: no rank ever holds the values of another. All ranks call it.
    """
    ours = keys(values)
    (total,) = world.sum([float(len(ours))])
    wanted = max(1.0, float(round(fraction * total)))
    prefix = 0
    for shift in range(32 - DIGIT_BITS, -1, -DIGIT_BITS):
        digits = ours >> np.uint32(shift)
        among = digits[(digits >> np.uint32(DIGIT_BITS)) == prefix] & np.uint32((1 << DIGIT_BITS) - 1)
        counts = world.sum(np.bincount(among, minlength=1 << DIGIT_BITS).astype(float).tolist())
        digit = len(counts) - 1
        while digit > 0 and wanted > counts[digit]:
            wanted -= counts[digit]
            digit -= 1
        prefix = prefix << DIGIT_BITS | digit
    return np.uint32(prefix)


def keys(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Whole numbers in the order of the values, both zeros alike; what is not a number is last, and so not hidden."""
    bits = np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0.0)).astype(np.float32).view(np.uint32)
    ordered: npt.NDArray[np.uint32] = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return ordered


def _losses(model: HiddenStates, row: Row) -> Tensor:
    loss_R, _ = label_losses(model.hidden(row)[row.label_rows_R], row.labels_R, model.head())
    return loss_R
