"""The clipped surrogate against PPO's formula, with DAPO's two limits, and its gradient against autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ytrain.objective.policy import PolicyWeight

pytestmark = pytest.mark.unit
LOW, HIGH = 0.2, 0.28
SAMPLED = -2.0


def formula(log_p: Tensor, advantage: float) -> Tensor:
    """-min(ratio * A, clip(ratio) * A), arXiv 1707.06347 equation 7 with the limits of arXiv 2503.14476."""
    ratio = torch.exp(log_p - SAMPLED)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - LOW, 1 + HIGH) * advantage)


def policy_weight(gain: float, blame: float) -> PolicyWeight:
    """Of one label."""
    of_label = {"gain_R": gain, "blame_R": blame, "sampled_log_p_R": SAMPLED}
    tensors = {name: torch.tensor([value], dtype=torch.float64) for name, value in of_label.items()}
    return PolicyWeight(**tensors, clip_low=LOW, clip_high=HIGH)


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight", "surrogate"),
    [
        (1.0, 2.0, 2.0, -2.0),
        (1.0, -2.0, -2.0, 2.0),
        (1.27, 2.0, 2.54, -2.54),  # above PPO's 1.2, below DAPO's 1.28
        (1.29, 2.0, 0.0, -2.56),
        (0.5, 2.0, 1.0, -1.0),  # a good token that became unlikely is never clipped
        (0.81, -2.0, -1.62, 1.62),
        (0.79, -2.0, 0.0, 1.6),
        (3.0, -2.0, -6.0, 6.0),  # nor a bad one that became likelier
    ],
)
def test_each_side_is_clipped_at_its_own_limit(ratio: float, advantage: float, weight: float, surrogate: float) -> None:
    policy = policy_weight(max(advantage, 0.0), min(advantage, 0.0))
    loss_R = -(torch.tensor([ratio], dtype=torch.float64).log() + SAMPLED)
    assert policy(loss_R, None, slice(None)).item() == pytest.approx(weight)
    assert policy.surrogate(loss_R).item() == pytest.approx(surrogate)
    assert policy.clipped(loss_R).item() == (weight == 0)


@given(
    log_p=st.floats(-4, -0.01),
    advantages=st.lists(st.floats(-3, 3), min_size=1, max_size=5),
)
def test_branches_through_a_token_are_clipped_each_for_itself(log_p: float, advantages: list[float]) -> None:
    now = torch.tensor([log_p], dtype=torch.float64, requires_grad=True)
    expected = torch.stack([formula(now, advantage) for advantage in advantages]).sum()
    (gradient,) = torch.autograd.grad(expected, now)
    policy = policy_weight(sum(max(a, 0.0) for a in advantages), sum(min(a, 0.0) for a in advantages))
    loss_R = -now.detach()
    assert policy.surrogate(loss_R).item() == pytest.approx(expected.item(), abs=1e-9)
    # The weight is that of -log p.
    assert -policy(loss_R, None, slice(None)).item() == pytest.approx(gradient.item(), abs=1e-9)
