"""A row: the segments of one forward pass, laid end to end without padding, with the labels that train in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tensors of one forward pass of T tokens and R labels.

    `boundaries` are the S + 1 offsets of the segments in the row; positions restart at each. `label_rows_R` holds the
    index of the hidden state that predicts each of `labels_R`.
    """

    input_ids_1T: Tensor
    position_ids_1T: Tensor
    boundaries: tuple[int, ...]
    label_rows_R: Tensor
    labels_R: Tensor
    masks: tuple[Tensor, ...] | None = None
    """Of each segment, `[T, T]`, true where a token sees another; None: each sees those before it."""

    @property
    def tokens(self) -> int:
        return self.boundaries[-1]

    def with_labels(self, kept_R: Tensor) -> "Row":
        """The same row with some of its labels."""
        return replace(self, label_rows_R=self.label_rows_R[kept_R], labels_R=self.labels_R[kept_R])

    def to(self, device: torch.device) -> "Row":
        return Row(
            input_ids_1T=self.input_ids_1T.to(device, non_blocking=True),
            position_ids_1T=self.position_ids_1T.to(device, non_blocking=True),
            boundaries=self.boundaries,
            label_rows_R=self.label_rows_R.to(device, non_blocking=True),
            labels_R=self.labels_R.to(device, non_blocking=True),
            masks=None if self.masks is None else tuple(mask.to(device, non_blocking=True) for mask in self.masks),
        )


def build_row(samples: Samples, segments: Sequence[Segment]) -> Row:
    """Lay the segments end to end."""
    ids, positions, label_rows, labels = [], [], [], []
    boundaries = [0]
    for segment in segments:
        sample = samples[segment.sample]
        label_positions = np.flatnonzero(sample.supervised)[segment.first_label : segment.end_label]
        length = int(label_positions[-1])
        ids.append(sample.input_ids[:length])
        positions.append(np.arange(length))
        label_rows.append(label_positions - 1 + boundaries[-1])
        labels.append(sample.input_ids[label_positions])
        boundaries.append(boundaries[-1] + length)
    return Row(
        input_ids_1T=_long(ids)[None],
        position_ids_1T=_long(positions)[None],
        boundaries=tuple(boundaries),
        label_rows_R=_long(label_rows),
        labels_R=_long(labels),
    )


def _long(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
