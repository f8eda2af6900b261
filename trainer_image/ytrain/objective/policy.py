"""The clipped surrogate of PPO (arXiv 1707.06347) as a token weight: its gradient is a weighted one of -log p.

Where a token lies on several branches of a tree, the surrogates of the branches add up. Each is clipped by the sign of
its own advantage, so positive and negative advantages are summed apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PolicyWeight:
    """Of each label `[R]`: the sums of the positive and of the negative advantages of the branches through it."""

    gain_R: Tensor
    blame_R: Tensor
    sampled_log_p_R: Tensor
    """Log-probability of the label under the policy that sampled it."""
    clip_low: float
    clip_high: float
    needs_top_entropy: bool = False

    def __call__(self, loss_C: Tensor, top_entropy_C: Tensor | None, rows: slice) -> Tensor:
        """Weights `[C]` of the labels `rows` with losses `loss_C`: ratio * advantage, 0 where it is clipped."""
        del top_entropy_C
        ratio_C = torch.exp(-loss_C - self.sampled_log_p_R[rows])
        gain_C = self.gain_R[rows].where(ratio_C <= 1.0 + self.clip_high, 0.0)
        blame_C = self.blame_R[rows].where(ratio_C >= 1.0 - self.clip_low, 0.0)
        return (gain_C + blame_C) * ratio_C

    def surrogate(self, loss_R: Tensor) -> Tensor:
        """What is minimised, `[R]`: minus the clipped surrogate, summed over the branches through each label."""
        ratio_R = torch.exp(-loss_R - self.sampled_log_p_R)
        upper_R, lower_R = ratio_R.clamp(max=1.0 + self.clip_high), ratio_R.clamp(min=1.0 - self.clip_low)
        return -(self.gain_R * upper_R + self.blame_R * lower_R)

    def clipped(self, loss_R: Tensor) -> Tensor:
        """Which labels lost the gradient of some branch, `[R]`."""
        ratio_R = torch.exp(-loss_R - self.sampled_log_p_R)
        too_likely_R = (ratio_R > 1.0 + self.clip_high) & (self.gain_R > 0)
        return too_likely_R | ((ratio_R < 1.0 - self.clip_low) & (self.blame_R < 0))
