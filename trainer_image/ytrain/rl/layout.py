"""Lays sample trees out for training: every shared token once, depth first, seen by what descends from it.

The loss over a laid out tree is that over its branches one by one: a token weighs what the branches through it weigh
together (arXiv 2511.00413). A tree that does not fit a row is laid out in parts, each with some of the leaves.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ytrain.data.rows import Row
from ytrain.rl.tree import ROOT, Figures, Ids, SampleTree

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a branch weighs: `advantages[leaf]` holds the advantage of each node on the path to the leaf, in order."""

    advantages: Mapping[int, Floats]
    masses: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Some leaves of a tree, with all that leads to them: T tokens to forward, R labels to learn."""

    input_ids_T: Ids
    depth_T: Indices
    """Position of each token in its answer, the prompt included."""
    end_T: Indices
    """Index behind the last token that sees it."""
    label_rows_R: Indices
    """Token that predicts each label."""
    labels_R: Ids
    sampled_log_p_R: Figures
    entropy_R: Figures
    gain_R: Floats
    """Sum of mass * advantage over the branches through a label with a positive advantage."""
    blame_R: Floats
    """Likewise with a negative one."""
    mass_R: Floats
    """Mass of the branches through a label: the labels that it stands for."""

    @property
    def tokens(self) -> int:
        """Tokens to forward."""
        return len(self.input_ids_T)


def lay_out(tree: SampleTree, leaves: Sequence[int], weights: Weights) -> Layout:
    """Lay out the leaves and the nodes on their paths; a leaf's last token predicts nothing and is left out."""
    children: dict[int, list[int]] = defaultdict(list)
    gain, blame, mass = np.zeros(len(tree.nodes)), np.zeros(len(tree.nodes)), np.zeros(len(tree.nodes))
    for leaf in leaves:
        path, of_leaf = tree.path(leaf), weights.masses[leaf]
        advantages = weights.advantages[leaf]
        gain[path] += of_leaf * np.maximum(advantages, 0.0)
        blame[path] += of_leaf * np.minimum(advantages, 0.0)
        mass[path] += of_leaf
    for node in np.flatnonzero(mass).tolist():
        children[tree.nodes[node].parent].append(node)

    prompt = tree.prompt_ids
    ids: list[Ids] = [prompt]
    depths: list[Indices] = [np.arange(len(prompt))]
    label_rows: list[Indices] = []
    order: list[int] = []
    ends: dict[int, tuple[int, int]] = {}

    # Depth first without recursion: (node, token before it, its depth), and None at the end of a subtree.
    length = len(prompt)
    stack: list[tuple[int, int, int] | int] = [(node, length - 1, length) for node in reversed(children[ROOT])]
    begins: dict[int, int] = {}
    while stack:
        entry = stack.pop()
        if isinstance(entry, int):
            ends[entry] = (begins[entry], length)
            continue
        node, before, depth = entry
        tokens = tree.nodes[node].tokens
        forwarded = tokens if children[node] else tokens[:-1]
        order.append(node)
        label_rows.append(np.concatenate([[before], length + np.arange(len(tokens) - 1)]))
        begins[node] = length
        ids.append(forwarded)
        depths.append(depth + np.arange(len(forwarded)))
        length += len(forwarded)
        stack.append(node)
        stack += [(child, length - 1, depth + len(tokens)) for child in reversed(children[node])]

    end_T = np.full(length, length, dtype=np.int64)
    for node in order:
        begin, end = ends[node]
        own = len(tree.nodes[node].tokens) - (0 if children[node] else 1)
        end_T[begin : begin + own] = end
    counts = [len(tree.nodes[node].tokens) for node in order]
    return Layout(
        input_ids_T=np.concatenate(ids),
        depth_T=np.concatenate(depths),
        end_T=end_T,
        label_rows_R=np.concatenate(label_rows).astype(np.int64),
        labels_R=np.concatenate([tree.nodes[node].tokens for node in order]),
        sampled_log_p_R=np.concatenate([tree.nodes[node].log_p for node in order]),
        entropy_R=np.concatenate([tree.nodes[node].entropy for node in order]),
        gain_R=np.repeat(gain[order], counts),
        blame_R=np.repeat(blame[order], counts),
        mass_R=np.repeat(mass[order], counts),
    )


def idle_layout() -> Layout:
    """One token with one label that stands for none: forwarding it costs little and teaches nothing."""
    token, nothing = np.zeros(1, np.int32), np.zeros(1)
    return Layout(
        input_ids_T=token,
        depth_T=np.zeros(1, np.int64),
        end_T=np.ones(1, np.int64),
        label_rows_R=np.zeros(1, np.int64),
        labels_R=token,
        sampled_log_p_R=nothing.astype(np.float32),
        entropy_R=nothing.astype(np.float32),
        gain_R=nothing,
        blame_R=nothing,
        mass_R=nothing,
    )


def parts(tree: SampleTree, leaves: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """The leaves in groups that need at most `most_tokens` tokens each, the prompt included, or hold a single leaf."""
    group: list[int] = []
    nodes: set[int] = set()
    for leaf in leaves:
        path = set(tree.path(leaf))
        size = len(tree.prompt_ids) + sum(len(tree.nodes[node].tokens) for node in nodes | path)
        if group and size > most_tokens:
            yield group
            group, nodes = [], set()
        group.append(leaf)
        nodes |= path
    if group:
        yield group


def tree_row(layouts: Sequence[Layout]) -> Row:
    """The row of some trees, each a segment with a mask of its own."""
    boundaries = np.cumsum([0, *(layout.tokens for layout in layouts)])
    shifted = [layout.label_rows_R + first for layout, first in zip(layouts, boundaries[:-1], strict=True)]
    return Row(
        input_ids_1T=_long([layout.input_ids_T for layout in layouts])[None],
        position_ids_1T=_long([layout.depth_T for layout in layouts])[None],
        boundaries=tuple(boundaries.tolist()),
        tokens=int(boundaries[-1]),
        label_rows_R=_long(shifted),
        labels_R=_long([layout.labels_R for layout in layouts]),
        masks=tuple(ancestor_mask(torch.from_numpy(layout.end_T)) for layout in layouts),
    )


def ancestor_mask(end_T: Tensor) -> Tensor:
    """`[T, T]`, true where token t sees token k: k does not come later, and t belongs to what descends from k."""
    token_T = torch.arange(len(end_T))
    return (token_T[None, :] <= token_T[:, None]) & (token_T[:, None] < end_T[None, :])


def _long(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
