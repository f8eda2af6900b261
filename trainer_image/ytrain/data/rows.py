"""A row: the samples of one forward pass without padding, and the labels that train in it.

What samples begin with in common, a system prompt for instance, is forwarded once: a row is laid out as a prefix tree,
whose nodes are runs of tokens that see those of the nodes above. It computes what the samples one by one would.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ytrain.data.prefixes import prefix_tree


class Tokens(Protocol):
    """The token ids and the label mask of one sample (`supervised[t]`: token t is a label, predicted from t - 1)."""

    @property
    def input_ids(self) -> np.ndarray: ...
    @property
    def supervised(self) -> np.ndarray: ...


class Samples(Protocol):
    """Random access to samples by index."""

    def __getitem__(self, index: int, /) -> Tokens: ...


@dataclass(frozen=True)
class Segment:
    """The labels `first_label` to `end_label` (exclusive, counted among the sample's labels) of one sample.

    Under causal attention nothing behind the last of them matters, so only the tokens before it are forwarded.
    """

    sample: int
    first_label: int
    end_label: int


LEAST_SHARED = {"cpu": 8, "cuda": 64}
"""Fewer common tokens are not worth a node, which costs calls of kernels in every layer. On a CPU that is as much as
two or three tokens of SmolLM2-135M; on a GPU, not measured, about 30 of a model with 7 billion weights."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tensors of one forward pass of T tokens and R labels.

    `boundaries` are the N + 1 offsets of the nodes in the row; positions count from the beginning of a sample.
    `label_rows_R` holds the index of the hidden state that predicts each of `labels_R`, which are in order of segments.
    """

    input_ids_1T: Tensor
    position_ids_1T: Tensor
    boundaries: tuple[int, ...]
    tokens: int
    """Of the segments, one by one: what is shared counts in each."""
    label_rows_R: Tensor
    labels_R: Tensor
    paths: tuple[tuple[slice, ...], ...] | None = None
    """Of each node, where the nodes from a sample's beginning to it stand in the row. None: no node sees another."""
    masks: tuple[Tensor, ...] | None = None
    """Of each node, `[T, T]`, true where a token sees another; None: each sees those before it."""

    @property
    def forwarded(self) -> int:
        """Tokens that are computed."""
        return self.boundaries[-1]

    def with_labels(self, kept_R: Tensor) -> "Row":
        """The same row with some of its labels."""
        return replace(self, label_rows_R=self.label_rows_R[kept_R], labels_R=self.labels_R[kept_R])

    def to(self, device: torch.device) -> "Row":
        return replace(
            self,
            input_ids_1T=self.input_ids_1T.to(device, non_blocking=True),
            position_ids_1T=self.position_ids_1T.to(device, non_blocking=True),
            label_rows_R=self.label_rows_R.to(device, non_blocking=True),
            labels_R=self.labels_R.to(device, non_blocking=True),
            masks=None if self.masks is None else tuple(mask.to(device, non_blocking=True) for mask in self.masks),
        )


CPU = torch.device("cpu")


def build_row(samples: Samples, segments: Sequence[Segment], device: torch.device = CPU) -> Row:
    """Lay the segments out as a prefix tree, on the device."""
    ids, label_positions, labels = [], [], []
    for segment in segments:
        sample = samples[segment.sample]
        label_positions.append(np.flatnonzero(sample.supervised)[segment.first_label : segment.end_label])
        ids.append(sample.input_ids[: label_positions[-1][-1]])
        labels.append(sample.input_ids[label_positions[-1]])
    nodes, ends = prefix_tree(ids, LEAST_SHARED.get(device.type, max(LEAST_SHARED.values())))
    boundaries = np.cumsum([0, *(len(node.ids) for node in nodes)])
    paths: list[tuple[slice, ...]] = []
    for node, (begin, end) in zip(nodes, pairwise(boundaries.tolist()), strict=True):
        paths.append((*(() if node.parent is None else paths[node.parent]), slice(begin, end)))
    row_T = np.arange(boundaries[-1])
    label_rows = [
        np.concatenate([row_T[part] for part in paths[end]])[positions - 1]
        for end, positions in zip(ends, label_positions, strict=True)
    ]
    row = Row(
        input_ids_1T=_long([node.ids for node in nodes])[None],
        position_ids_1T=_long([np.arange(node.depth, node.depth + len(node.ids)) for node in nodes])[None],
        boundaries=tuple(boundaries.tolist()),
        tokens=sum(map(len, ids)),
        label_rows_R=_long(label_rows),
        labels_R=_long(labels),
        paths=tuple(paths) if any(len(path) > 1 for path in paths) else None,
    )
    return row.to(device)


def _long(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
