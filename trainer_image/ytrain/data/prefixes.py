"""What sequences of tokens begin with in common, as a prefix tree: every common beginning once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Node:
    """A run of tokens: `depth` of them come before, in the nodes above."""

    ids: np.ndarray
    depth: int
    parent: int | None


def prefix_tree(sequences: Sequence[np.ndarray], least_shared: int) -> tuple[list[Node], list[int]]:
    """Nodes that spell the sequences, parents first, and the node in which each sequence ends.

    A node is made where at least two sequences have at least `least_shared` further tokens in common.
    """
    nodes: list[Node] = []
    ends = [0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda index: sort_key(sequences[index]))
    ordered = [sequences[index] for index in order]
    shared = [0, *(common_prefix(a, b) for a, b in pairwise(ordered))]
    to_do: list[tuple[int, int, int, int | None]] = [(0, len(order), 0, None)]  # these share so many tokens, in a node
    while to_do:
        first, end, depth, parent = to_do.pop()
        runs = _runs(shared, first, end, depth + least_shared)
        for begin, stop in sorted(runs, key=lambda run: min(order[slice(*run)])):
            whole = begin + 1 == stop
            length = len(ordered[begin]) if whole else min(shared[begin + 1 : stop])
            node = parent
            if length > depth:
                node = len(nodes)
                nodes.append(Node(ordered[begin][depth:length], depth, parent))
            if whole:
                assert node is not None
                ends[order[begin]] = node
            else:
                to_do.append((begin, stop, length, node))
    return nodes, ends


def sort_key(ids: np.ndarray) -> bytes:
    """Brings sequences with common beginnings together."""
    return ids.astype(">u4").tobytes()


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """The number of tokens that two sequences begin with in common."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


def _runs(shared: Sequence[int], first: int, end: int, least: int) -> Iterator[tuple[int, int]]:
    """Splits the range where a sequence shares fewer than `least` tokens with the one before."""
    begin = first
    for index in range(first + 1, end):
        if shared[index] < least:
            yield begin, index
            begin = index
    yield begin, end
