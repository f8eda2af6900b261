"""Token weights: how much of each label's gradient is kept.

A kind is one pure function of the token's loss and, where it asks for it, of the entropy of its prediction. To add one,
write the function, add it to `weight_function` and to `ytrain_api`'s loss kinds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

TOP_ENTROPY_K = 20
"""Number of most likely tokens whose renormalised entropy `eaft` looks at (arXiv 2601.02151)."""

FLOAT32_EPSILON = torch.finfo(torch.float32).eps
NLIRG_HIGH_LOSS_FLOOR = 5e-8


class TokenWeight(Protocol):
    """The weight of some labels of a row."""

    @property
    def needs_top_entropy(self) -> bool: ...

    def __call__(self, loss_C: Tensor, top_entropy_C: Tensor | None, rows: slice) -> Tensor:
        """Weights `[C]`, never differentiated, of the labels `rows` of the row; see `WeightFunction`."""
        ...


@dataclass(frozen=True, kw_only=True)
class WeightFunction:
    """A token weight as a function of the label's loss `l_C` and of `top_entropy_C`, both in nats, float32.

    `top_entropy_C` is the entropy of the `TOP_ENTROPY_K` most likely tokens, renormalised; it is computed only for
    functions that set `needs_top_entropy`, the others receive None. The result `[C]` is never differentiated.
    """

    kind: str
    function: Callable[[Tensor, Tensor | None], Tensor]
    needs_top_entropy: bool = False

    def __call__(self, loss_C: Tensor, top_entropy_C: Tensor | None = None, rows: slice | None = None) -> Tensor:
        del rows  # which labels they are does not matter
        return self.function(loss_C, top_entropy_C)


def cross_entropy() -> WeightFunction:
    """Every label counts fully."""
    return WeightFunction(kind="crossEntropy", function=lambda loss_C, _: torch.ones_like(loss_C))


def nlirg(
    *,
    rise_slope: float = 1.7,
    rise_midpoint: float = 1.2,
    split: float = 3.0,
    fall_midpoint: float = 6.2,
    cutoff: float = 15.0,
) -> WeightFunction:
    """Gradient-driven nonlinear learning intensity regulation: damps what is known and what is probably wrong.

    Up to `split` nats the weight rises as sigmoid(rise_slope * (l - rise_midpoint)), from there to `cutoff` it falls as
    sigmoid(fall_midpoint - l), at `cutoff` and beyond it is 0. Source: the published behaviour of Y-Trainer.
    """

    def function(loss_C: Tensor, _: Tensor | None) -> Tensor:
        rising = torch.sigmoid(rise_slope * (loss_C - rise_midpoint))
        falling = torch.sigmoid(fall_midpoint - loss_C) + NLIRG_HIGH_LOSS_FLOOR
        weight_C = torch.where(loss_C <= split, rising, falling) + FLOAT32_EPSILON
        return torch.where(loss_C < cutoff, weight_C, 0.0)

    return WeightFunction(kind="nlirg", function=function)


def dft() -> WeightFunction:
    """Dynamic fine-tuning: the label's own probability, exp(-l) (arXiv 2508.05629)."""
    return WeightFunction(kind="dft", function=lambda loss_C, _: torch.exp(-loss_C))


def eaft(*, exponent: float = 1.0) -> WeightFunction:
    """Entropy-adaptive fine-tuning: (H_top20 / ln 20) ** exponent, in [0, 1] (arXiv 2601.02151)."""

    def function(_: Tensor, top_entropy_C: Tensor | None) -> Tensor:
        assert top_entropy_C is not None
        return (top_entropy_C / math.log(TOP_ENTROPY_K)).clamp(0.0, 1.0) ** exponent

    return WeightFunction(kind="eaft", function=function, needs_top_entropy=True)


def threshold(*, limit: float) -> WeightFunction:
    """Labels with a loss of `limit` nats or more are left out, the others count fully (arXiv 2501.14315)."""
    return WeightFunction(kind="threshold", function=lambda loss_C, _: (loss_C < limit).to(loss_C.dtype))
