"""A sample tree: the answers to one prompt, with what they share held once, as the objective and the report see it.

A node is a segment of tokens between forks; a chain of answers without forks is a tree too. How trees are sampled is
`sampler.py`'s, what their leaves are worth `advantages.py`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Figures = NDArray[np.float32]
ROOT = -1
"""The parent of a node that follows the prompt."""
ENTROPY_DECIMALS = 3
"""To which entropies (nats) are compared: equal prefixes differ by rounding, which depends on what is computed beside
them, and so on the number of ranks."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A segment of n tokens."""

    parent: int
    """Number of the node before, or `ROOT`; parents come before their children."""
    tokens: Ids
    log_p: Figures
    """Log-probability of each token when it was sampled, at the sampling temperature and before top_p cut it."""
    entropy: Figures
    """Of the distribution that each token was sampled from, in nats, likewise."""


@dataclass(frozen=True)
class Leaf:
    """The end of an answer."""

    mass: float
    """Answers that it stands for: 1, or more where pruning merged some into it."""
    ended: bool
    """Whether the model ended it; else it ran into the limit of its length."""


@dataclass(frozen=True, kw_only=True)
class SampleTree:
    """The answers to one prompt."""

    prompt_ids: Ids
    nodes: tuple[Node, ...]
    leaves: Mapping[int, Leaf]
    """By the node that it ends in."""

    @property
    def parents(self) -> list[int]:
        """Of each node."""
        return [node.parent for node in self.nodes]

    @property
    def tokens(self) -> int:
        """Sampled tokens, each counted once."""
        return sum(len(node.tokens) for node in self.nodes)

    def path(self, leaf: int) -> list[int]:
        """The nodes from the prompt to a leaf, that included."""
        nodes = [leaf]
        while self.nodes[nodes[-1]].parent != ROOT:
            nodes.append(self.nodes[nodes[-1]].parent)
        return nodes[::-1]

    def answer(self, leaf: int) -> Ids:
        """All tokens of the answer that ends in a leaf."""
        return np.concatenate([self.nodes[node].tokens for node in self.path(leaf)])
