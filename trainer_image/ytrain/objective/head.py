"""The LM head in chunks of supervised rows: loss, entropy, weight and gradient per chunk, never the full logits matrix.

The gradient of everything that we minimise is known in closed form at the logits, so it is computed while a chunk's
logits are there; the backward pass only hands it on. Peak memory is a few [chunk, vocabulary] matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ytrain.objective.weights import TOP_ENTROPY_K, TokenWeight

CHUNK_BYTES = 32 * 2**20
"""Size of one float32 [chunk, vocabulary] matrix; a bound on memory, not tuned for speed."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last linear map of a language model, `logits = soft_cap(scale * (hidden @ weight.T + bias))`.

    `weight_VD` may require a gradient (full training) or not (LoRA). `soft_cap` is Gemma's final logit soft-capping.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None

    def logits(self, hidden_CD: Tensor) -> Tensor:
        """Float32 logits `[C, V]` of hidden rows `[C, D]`."""
        logits_CV = torch.nn.functional.linear(hidden_CD, self.weight_VD, self.bias_V).float()
        if self.scale != 1.0:
            logits_CV = logits_CV.mul_(self.scale)
        if self.soft_cap is not None:
            logits_CV = logits_CV.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits_CV

    def cast(self, dtype: torch.dtype) -> "Head":
        """The same head with its weights in the dtype of the hidden states; no copy where they have it already."""
        bias_V = None if self.bias_V is None else self.bias_V.detach().to(dtype)
        return replace(self, weight_VD=self.weight_VD.detach().to(dtype), bias_V=bias_V)

    def log_probabilities(self, hidden_CD: Tensor) -> Tensor:
        """Float32 log-probabilities `[C, V]`."""
        return torch.log_softmax(self.logits(hidden_CD), dim=-1)

    def gradient_before_cap(self, gradient_CV: Tensor, logits_CV: Tensor | None) -> Tensor:
        """The gradient at `hidden @ weight.T` from the one at the logits, in place."""
        if self.soft_cap is not None:
            assert logits_CV is not None
            gradient_CV.mul_(1.0 - (logits_CV / self.soft_cap) ** 2)
        return gradient_CV.mul_(self.scale) if self.scale != 1.0 else gradient_CV


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Another model's predictions at the same rows: its hidden states `[R, D']` and its head."""

    hidden_RD: Tensor
    head: Head


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised, up to the normaliser: sum over rows of weight * loss, plus the anchor.

    `teacher_share` is the part (0..1) of the loss that compares with the teacher's distribution instead of the label.
    `anchor_weight` multiplies KL(current || start), which no token weight touches; a row that stands for several labels
    or for none says so in `anchor_mass_R`.
    """

    weigh: TokenWeight
    rescale: bool = False
    anchor_weight: float = 0.0
    anchor_mass_R: Tensor | None = None
    teacher_share: float = 0.0


@dataclass(kw_only=True)
class RowStatistics:
    """Per-row figures `[R]`, float32, in nats: what the metrics and a corpus analysis are made of."""

    loss_R: Tensor
    weight_R: Tensor
    anchor_R: Tensor | None = field(default=None)


def objective_sum(
    hidden_RD: Tensor,
    labels_R: Tensor,
    head: Head,
    objective: Objective,
    *,
    start: Reference | None = None,
    teacher: Reference | None = None,
    chunk_rows: int | None = None,
) -> tuple[Tensor, RowStatistics]:
    """Sum over the rows of the objective (a differentiable scalar) and the per-row figures.

    `hidden_RD` are the final hidden states that predict `labels_R`. `start` is needed with an anchor, `teacher` with a
    teacher share. The caller divides by the number of labels of the global step.
    """
    pass_ = _HeadPass(labels_R, head, objective, start, teacher, chunk_rows)
    total, loss_R, weight_R, anchor_R = _ChunkedHead.apply(hidden_RD, head.weight_VD, head.bias_V, pass_)  # type: ignore[no-untyped-call]
    return total, RowStatistics(loss_R=loss_R, weight_R=weight_R, anchor_R=anchor_R if start is not None else None)


def label_losses(hidden_RD: Tensor, labels_R: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Loss -log p(label) and entropy of the prediction, `[R]` each in nats, from the same logits row; no gradient."""
    head = head.cast(hidden_RD.dtype)
    with torch.no_grad():
        parts = []
        for rows in chunks(len(labels_R), head.weight_VD.shape[0]):
            logits_CV = head.logits(hidden_RD[rows])
            log_p_CV = torch.log_softmax(logits_CV, dim=-1)
            loss_C = -log_p_CV.gather(1, labels_R[rows, None]).squeeze(1)
            # In place of the logits: on a CPU, pages of new memory take a tenth of the time.
            parts.append((loss_C, -torch.exp(log_p_CV, out=logits_CV).mul_(log_p_CV).sum(-1)))
        losses, entropies = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(entropies)


def divergence(hidden_RD: Tensor, head: Head, other: Reference) -> Tensor:
    """KL(other || current) per row, `[R]` in nats; no gradient."""
    head, other_head = head.cast(hidden_RD.dtype), other.head.cast(other.hidden_RD.dtype)
    with torch.no_grad():
        parts = []
        for rows in chunks(len(hidden_RD), head.weight_VD.shape[0]):
            log_p_CV = head.log_probabilities(hidden_RD[rows])
            log_q_CV = other_head.log_probabilities(other.hidden_RD[rows])
            negative_gain_CV = log_p_CV.sub_(log_q_CV)
            parts.append(-negative_gain_CV.mul_(log_q_CV.exp_()).sum(-1))
        return torch.cat(parts)


def chunks(rows: int, vocabulary: int, chunk_rows: int | None = None) -> Iterator[slice]:
    """Slices of at most `chunk_rows` rows; by default as many as fit `CHUNK_BYTES` of float32 logits; at least one."""
    size = chunk_rows or max(1, CHUNK_BYTES // (4 * vocabulary))
    return (slice(begin, min(begin + size, rows)) for begin in range(0, max(rows, 1), size))


@dataclass(frozen=True)
class _HeadPass:
    labels_R: Tensor
    head: Head
    objective: Objective
    start: Reference | None
    teacher: Reference | None
    chunk_rows: int | None

    def cast(self, dtype: torch.dtype) -> "_HeadPass":
        start = self.start and replace(self.start, head=self.start.head.cast(self.start.hidden_RD.dtype))
        teacher = self.teacher and replace(self.teacher, head=self.teacher.head.cast(self.teacher.hidden_RD.dtype))
        return replace(self, head=self.head.cast(dtype), start=start, teacher=teacher)


class _ChunkedHead(torch.autograd.Function):
    """Computes the gradient along with the loss; the backward pass scales and returns it."""

    @staticmethod
    def forward(ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, pass_: _HeadPass) -> Any:
        hidden_gradient_RD = torch.empty_like(hidden_RD) if ctx.needs_input_grad[0] else None
        weight_gradient_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        bias_gradient_V = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
        total = hidden_RD.new_zeros((), dtype=torch.float32)
        pass_ = pass_.cast(hidden_RD.dtype)  # once, not for every chunk
        figures = []
        for rows in chunks(len(hidden_RD), weight_VD.shape[0], pass_.chunk_rows):
            chunk_total, gradient_CV, *chunk_figures = _chunk(hidden_RD[rows], rows, pass_)
            total += chunk_total
            figures.append(chunk_figures)
            gradient_CV = gradient_CV.to(hidden_RD.dtype)
            if hidden_gradient_RD is not None:
                torch.mm(gradient_CV, pass_.head.weight_VD, out=hidden_gradient_RD[rows])
            if weight_gradient_VD is not None:
                weight_gradient_VD += gradient_CV.T @ hidden_RD[rows]
            if bias_gradient_V is not None:
                bias_gradient_V += gradient_CV.sum(0)
        ctx.save_for_backward(hidden_gradient_RD, weight_gradient_VD, bias_gradient_V)
        loss_R, weight_R, anchor_R = (torch.cat(parts) for parts in zip(*figures, strict=True))
        ctx.mark_non_differentiable(loss_R, weight_R, anchor_R)
        return total, loss_R, weight_R, anchor_R

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
        # In place: nobody else holds them, and a second [V, D] matrix would be the largest tensor of a step.
        return *(None if saved is None else saved.mul_(gradient) for saved in ctx.saved_tensors), None


def _chunk(hidden_CD: Tensor, rows: slice, pass_: _HeadPass) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Objective, gradient at the logits `[C, V]`, loss, weight and anchor `[C]` of one chunk."""
    head, objective = pass_.head, pass_.objective
    labels_C1 = pass_.labels_R[rows, None]
    logits_CV = head.logits(hidden_CD)
    log_p_CV = torch.log_softmax(logits_CV, dim=-1)
    loss_C = -log_p_CV.gather(1, labels_C1).squeeze(1)
    top_entropy_C = _top_entropy(log_p_CV) if objective.weigh.needs_top_entropy else None
    weight_C = objective.weigh(loss_C, top_entropy_C, rows)
    needs_log_p = objective.teacher_share or objective.anchor_weight
    p_CV = log_p_CV.exp() if needs_log_p else log_p_CV.exp_()

    # d/dlogits of CE against any distribution t is p - t; here t mixes the label and the teacher.
    share = objective.teacher_share
    gradient_CV = p_CV.clone() if objective.anchor_weight else p_CV
    gradient_CV.scatter_add_(1, labels_C1, torch.full_like(loss_C, share - 1.0)[:, None])
    mixed_loss_C = loss_C
    if share:
        assert pass_.teacher is not None
        teacher_p_CV = pass_.teacher.head.log_probabilities(pass_.teacher.hidden_RD[rows]).exp_()
        mixed_loss_C = (1.0 - share) * loss_C - share * (teacher_p_CV * log_p_CV).sum(-1)
        gradient_CV.sub_(teacher_p_CV, alpha=share)
    gradient_CV.mul_(weight_C[:, None])
    total = (weight_C * mixed_loss_C).sum()

    anchor_C = torch.zeros_like(loss_C)
    if objective.anchor_weight:
        assert pass_.start is not None
        ratio_CV = log_p_CV - pass_.start.head.log_probabilities(pass_.start.hidden_RD[rows])
        anchor_C = (p_CV * ratio_CV).sum(-1)
        counted_C = anchor_C
        ratio_CV.sub_(anchor_C[:, None])
        if objective.anchor_mass_R is not None:
            mass_C = objective.anchor_mass_R[rows]
            counted_C = mass_C * anchor_C
            ratio_CV.mul_(mass_C[:, None])
        # d/dlogits of KL(p || q) is p * (log p/q - KL).
        gradient_CV.addcmul_(p_CV, ratio_CV, value=objective.anchor_weight)
        total = total + objective.anchor_weight * counted_C.sum()
    return total, head.gradient_before_cap(gradient_CV, logits_CV), loss_C, weight_C, anchor_C


def _top_entropy(log_p_CV: Tensor) -> Tensor:
    """Entropy `[C]` in nats of the most likely tokens, renormalised among themselves."""
    log_top_CK = torch.log_softmax(log_p_CV.topk(min(TOP_ENTROPY_K, log_p_CV.shape[-1]), dim=-1).values, dim=-1)
    return -(log_top_CK.exp() * log_top_CK).sum(-1)
