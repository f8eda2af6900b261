"""Causal attention along the paths of a row's prefix tree: packed samples are isolated, no work is spent across them.

A node may bring a mask of its own, for what is no line of tokens but a tree; sliding windows are passed over then.

Registered with transformers as `SEGMENT_ATTENTION`; a model switched to it takes `node_boundaries` in its forward pass.
Masks are made once for all layers: one is kept for the backward pass, and not one a layer.
Generation uses transformers' own attention.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

SEGMENT_ATTENTION = "ytrain_segments"

MadeMasks = dict[Any, Tensor | None]
"""The masks of one forward pass, to be given to it empty."""

_ALIGNED = 8
"""Of this many entries, or a multiple, are a mask's rows in memory. Others PyTorch copies, in every layer, for the CUDA
kernel that takes masks (`preprocess_mask` in its attention.cpp)."""


class UnsupportedAttention(Exception):
    """The model asks for something that this attention does not compute."""


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    node_boundaries: tuple[int, ...] | None = None,
    node_paths: tuple[tuple[slice, ...], ...] | None = None,
    node_masks: tuple[Tensor, ...] | None = None,
    made_masks: MadeMasks | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention output `[1, T, heads, head width]` of queries `[1, heads, T, head width]`; keys may have fewer heads.

    Raises:
        UnsupportedAttention: the model asks for something that this attention does not compute.
    """
    asked = {"attention soft-capping": softcap, "attention sinks": s_aux, "a mask of its own": attention_mask}
    for what, given in asked.items():
        if given is not None:
            raise UnsupportedAttention(f"{type(module).__name__} uses {what}, which is not supported")
    if node_boundaries is None:
        raise UnsupportedAttention(f"{type(module).__name__} is not told which tokens of a row belong together")
    parts, grouped = [], query.shape[1] != key.shape[1]
    made = {} if made_masks is None else made_masks
    for node, (begin, end) in enumerate(pairwise(node_boundaries)):
        path = (slice(begin, end),) if node_paths is None else node_paths[node]
        keys, values = (_joined([each[:, :, rows] for rows in path]) for each in (key, value))
        sizes = end - begin, keys.shape[2], sliding_window
        which = sizes if node_masks is None else node
        if which not in made:
            seen = _seen(*sizes, query.device) if node_masks is None else node_masks[node]
            made[which] = None if seen is None else _added(seen, query)
        mask = made[which]
        widened = mask is not None and grouped and query.device.type != "cpu"
        if widened:  # on CUDA no kernel takes a mask and grouped heads but the one that keeps all [T, T] weights
            keys, values = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (keys, values))
        part_1HLW = scaled_dot_product_attention(
            query[:, :, begin:end],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=grouped and not widened,
        )
        parts.append(part_1HLW.transpose(1, 2))
    return torch.cat(parts, dim=1), None


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _seen(queries: int, keys: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """`[queries, keys]`, true where one of the last tokens of a path sees another; None: plain causal attention."""
    before = keys - queries
    windowed = sliding_window is not None and keys > sliding_window
    if not before and not windowed:
        return None
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(before)
    return seen.triu(before + 1 - sliding_window) if sliding_window is not None and windowed else seen


def _added(seen: Tensor, query: Tensor) -> Tensor:
    """The mask as kernels take it: 0 or minus infinity, in the dtype in which they compute."""
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    queries, keys = seen.shape
    rows = torch.zeros(queries, math.ceil(keys / _ALIGNED) * _ALIGNED, dtype=dtype, device=seen.device)
    return rows[:, :keys].masked_fill_(~seen, -torch.inf)


AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
