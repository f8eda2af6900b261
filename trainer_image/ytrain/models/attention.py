"""Causal attention within each segment of a row: exact isolation of packed samples, and no work spent across them.

A segment may bring a mask of its own, for what is no line of tokens but a tree; sliding windows are passed over then.

Registered with transformers as `SEGMENT_ATTENTION`; a model switched to it takes `segment_boundaries` in its forward
pass. Generation uses transformers' own attention.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ytrain_api.errors import SpecError

SEGMENT_ATTENTION = "ytrain_segments"


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segment_boundaries: tuple[int, ...],
    segment_masks: tuple[Tensor, ...] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention output `[1, T, heads, head width]` of queries `[1, heads, T, head width]`; keys may have fewer heads.

    Raises:
        SpecError: the model asks for something that this attention does not compute.
    """
    if softcap is not None or s_aux is not None:
        what = "attention soft-capping" if softcap is not None else "attention sinks"
        raise SpecError(f"model.source: {type(module).__name__} uses {what}, which training does not support yet")
    assert attention_mask is None
    parts, grouped = [], query.shape[1] != key.shape[1]
    for number, (begin, end) in enumerate(pairwise(segment_boundaries)):
        mask = (
            _window_mask(end - begin, sliding_window, query.device) if segment_masks is None else segment_masks[number]
        )
        keys, values = key[:, :, begin:end], value[:, :, begin:end]
        if mask is not None and grouped:
            # On CUDA no kernel takes a mask and grouped heads but the one that keeps all [T, T] weights.
            keys, values = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (keys, values))
        part_1HLW = scaled_dot_product_attention(
            query[:, :, begin:end],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=grouped and mask is None,
        )
        parts.append(part_1HLW.transpose(1, 2))
    return torch.cat(parts, dim=1), None


def _window_mask(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """The boolean mask of a segment that is longer than the sliding window, else None: plain causal attention."""
    if sliding_window is None or length <= sliding_window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - sliding_window)


AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
