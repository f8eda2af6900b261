"""Token weights against the published table and their plain formulas."""

import math

import pytest
import torch

from ytrain.objective import weights

pytestmark = pytest.mark.unit

NLIRG_TABLE = [
    (0.0, 0.1151), (0.5, 0.2333), (1.2, 0.5), (2.0, 0.7958), (3.0, 0.9552), (3.0001, 0.9608), (4.0, 0.9003),
    (5.0, 0.7685), (6.2, 0.5), (8.0, 0.1419), (10.0, 0.0219), (14.99, 0.00015), (15.0, 0.0), (40.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "weight"), NLIRG_TABLE)
def test_nlirg_equals_its_reference_table(loss: float, weight: float) -> None:
    assert weights.nlirg()(torch.tensor([loss]), None).item() == pytest.approx(weight, abs=1e-4)


def test_nlirg_constants_are_parameters() -> None:
    function = weights.nlirg(rise_slope=2.0, rise_midpoint=1.0, split=2.0, fall_midpoint=4.0, cutoff=8.0)
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0])
    sigmoid = 1 / (1 + math.exp(-2.0))
    assert function(losses, None).tolist() == pytest.approx([0.5, sigmoid, 0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("function", "loss", "top_entropy", "weight"),
    [
        (weights.cross_entropy(), 7.0, None, 1.0),
        (weights.dft(), 2.0, None, math.exp(-2.0)),
        (weights.eaft(), 1.0, math.log(20), 1.0),
        (weights.eaft(), 1.0, math.log(20) / 2, 0.5),
        (weights.eaft(exponent=2.0), 1.0, math.log(20) / 2, 0.25),
        (weights.threshold(limit=2.5), 2.4, None, 1.0),
        (weights.threshold(limit=2.5), 2.5, None, 0.0),
    ],
)
def test_other_kinds_equal_their_formula(
    function: weights.WeightFunction, loss: float, top_entropy: float | None, weight: float
) -> None:
    entropy = None if top_entropy is None else torch.tensor([top_entropy])
    assert function(torch.tensor([loss]), entropy).item() == pytest.approx(weight, rel=1e-6)
