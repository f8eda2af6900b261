"""The chunked head with closed-form gradients equals full logits and autograd (float32; relative tolerance 1e-5)."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from ytrain.objective import weights
from ytrain.objective.head import Head, Objective, Reference, divergence, label_losses, objective_sum

pytestmark = pytest.mark.invariant

ROWS, WIDTH, VOCABULARY = 13, 8, 57

KINDS = [
    weights.cross_entropy(), weights.nlirg(), weights.dft(), weights.eaft(exponent=0.5), weights.threshold(limit=4.5),
]  # fmt: skip


def naive_objective(
    hidden: Tensor, labels: Tensor, head: Head, objective: Objective, start: Reference, teacher: Reference
) -> Tensor:
    """The definition, with the full logits and ordinary autograd."""

    def log_p(hidden: Tensor, head: Head) -> Tensor:
        logits = head.scale * (hidden @ head.weight_VD.T + (0 if head.bias_V is None else head.bias_V))
        if head.soft_cap:
            logits = head.soft_cap * torch.tanh(logits / head.soft_cap)
        return logits.log_softmax(-1)

    current = log_p(hidden, head)
    losses = -current[torch.arange(len(labels)), labels]
    top = current.topk(weights.TOP_ENTROPY_K, dim=-1).values
    top_p = top.exp() / top.exp().sum(-1, keepdim=True)
    weight = objective.weigh(losses.detach(), -(top_p * top_p.log()).sum(-1).detach())
    teacher_ce = -(log_p(teacher.hidden_RD, teacher.head).exp() * current).sum(-1)
    mixed = (1 - objective.teacher_share) * losses + objective.teacher_share * teacher_ce
    kl = (current.exp() * (current - log_p(start.hidden_RD, start.head))).sum(-1)
    mass = 1.0 if objective.anchor_mass_R is None else objective.anchor_mass_R
    return (weight * mixed).sum() + objective.anchor_weight * (mass * kl).sum()


@pytest.mark.parametrize(
    ("weigh", "anchor", "share", "cap", "scale", "bias"),
    [
        *((kind, 0.0, 0.0, None, 1.0, False) for kind in KINDS),
        *itertools.product([weights.nlirg()], [0.0, 0.3], [0.0, 0.5], [None, 5.0], [1.0, 0.5], [True]),
    ],
)
def test_chunked_equals_full_logits(
    weigh: weights.WeightFunction, anchor: float, share: float, cap: float | None, scale: float, bias: bool
) -> None:
    torch.manual_seed(0)
    mass = torch.randint(0, 4, (ROWS,)).float() if scale != 1.0 else None
    objective = Objective(weigh=weigh, anchor_weight=anchor, anchor_mass_R=mass, teacher_share=share)
    hidden = (torch.randn(ROWS, WIDTH) * 1.5).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (ROWS,))
    head = Head(
        weight_VD=torch.randn(VOCABULARY, WIDTH).requires_grad_(),
        bias_V=torch.randn(VOCABULARY).requires_grad_() if bias else None,
        soft_cap=cap,
        scale=scale,
    )
    start, teacher = (
        Reference(hidden_RD=torch.randn(ROWS, width), head=Head(weight_VD=torch.randn(VOCABULARY, width), soft_cap=cap))
        for width in (WIDTH, 2 * WIDTH)
    )
    parameters = [p for p in (hidden, head.weight_VD, head.bias_V) if p is not None]
    expected = naive_objective(hidden, labels, head, objective, start, teacher)
    expected_gradients = torch.autograd.grad(expected, parameters)

    for chunk_rows in (1, 5, ROWS):
        total, statistics = objective_sum(
            hidden, labels, head, objective, start=start, teacher=teacher, chunk_rows=chunk_rows
        )
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
        for gradient, expected_gradient in zip(torch.autograd.grad(total, parameters), expected_gradients, strict=True):
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
        assert statistics.loss_R.shape == statistics.weight_R.shape == (ROWS,)


def test_loss_and_entropy_come_from_the_same_row() -> None:
    torch.manual_seed(0)
    hidden, labels = torch.randn(ROWS, WIDTH), torch.randint(0, VOCABULARY, (ROWS,))
    head = Head(weight_VD=torch.randn(VOCABULARY, WIDTH))
    losses, entropies = label_losses(hidden, labels, head)
    log_p = (hidden @ head.weight_VD.T).log_softmax(-1)
    torch.testing.assert_close(losses, -log_p[torch.arange(ROWS), labels])
    torch.testing.assert_close(entropies, -(log_p.exp() * log_p).sum(-1))
    assert (entropies <= math.log(VOCABULARY)).all()


def test_divergence_is_kl_of_the_other_to_the_current() -> None:
    torch.manual_seed(0)
    hidden, other = torch.randn(ROWS, WIDTH), torch.randn(ROWS, WIDTH)
    head, other_head = (Head(weight_VD=torch.randn(VOCABULARY, WIDTH)) for _ in range(2))
    p, q = (hidden @ head.weight_VD.T).softmax(-1), (other @ other_head.weight_VD.T).softmax(-1)
    expected = (q * (q.log() - p.log())).sum(-1)
    torch.testing.assert_close(divergence(hidden, head, Reference(hidden_RD=other, head=other_head)), expected)
    assert divergence(hidden, head, Reference(hidden_RD=hidden, head=head)).abs().max() < 1e-6
