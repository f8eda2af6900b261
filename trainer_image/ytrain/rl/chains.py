"""What a sampler grows: chains of tokens, some of which branch off others; at the end they become a tree."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ytrain.rl.rollout import Request
from ytrain.rl.tree import ENTROPY_DECIMALS, ROOT, Ids, Leaf, Node, SampleTree


@dataclass(eq=False, kw_only=True)
class Chain:
    """An answer from where it begins to be one of its own."""

    origin: "Chain | None" = None
    """The chain that it branched off, or None."""
    start: int = 0
    """Tokens of the answer that it shares with its origin."""
    mass: float = 1.0
    draws: np.ndarray
    """Uniform numbers `[maxNewTokens]` of its own, from which it is sampled."""
    tokens: list[int] = field(default_factory=list)
    log_p: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    ended: bool = False
    """Whether its last token ends the answer."""
    forked: set[int] = field(default_factory=set)
    """Indices among its own tokens at which others branched off."""

    def answer(self, length: int) -> list[int]:
        """The first tokens of the answer, those of its origin included."""
        if length <= self.start and self.origin is not None:
            return self.origin.answer(length)
        before = self.origin.answer(self.start) if self.origin is not None else []
        return before + self.tokens[: length - self.start]

    @property
    def length(self) -> int:
        """Tokens of the answer so far."""
        return self.start + len(self.tokens)


@dataclass(eq=False)
class PromptChains:
    """A prompt and the chains that answer it."""

    request: Request
    max_new_tokens: int
    chains: list[Chain] = field(default_factory=list)
    begun: int = 0

    def chain(self, origin: Chain | None = None, start: int = 0) -> Chain:
        """A chain to be sampled, with a stream of random numbers of its own."""
        draws = np.random.default_rng([*self.request.key, self.begun]).random(self.max_new_tokens)
        self.begun += 1
        return Chain(origin=origin, start=start, mass=origin.mass if origin else 1.0, draws=draws)

    def fork(self, count: int, round_: int) -> "list[Fork]":
        """The tokens to be sampled again in a round."""
        points = fork_points(self.chains, count)
        for chain, index in points:
            chain.forked.add(index)
        return [
            Fork(self, chain, index, (*self.request.key, round_, number))
            for number, (chain, index) in enumerate(points)
        ]


@dataclass(frozen=True, eq=False)
class Fork:
    """A token that is sampled again."""

    group: PromptChains
    chain: Chain
    index: int
    """Among the chain's own tokens."""
    key: tuple[int, ...]
    """Of the random numbers that choose among its branches."""

    def branch(self) -> Chain:
        """Another continuation of what precedes the token."""
        return self.group.chain(self.chain, self.chain.start + self.index)


def fork_points(chains: Sequence[Chain], count: int) -> list[tuple[Chain, int]]:
    """The tokens of highest entropy that were not forked yet, at most `count`: chain, and index among its own tokens.

    A chain's first token is one at which it was forked itself, or at which independent chains part. Of equal entropies
    the earlier chain's and the earlier token's come first.
    """
    points = [
        (-round(entropy, ENTROPY_DECIMALS), number, index)
        for number, chain in enumerate(chains)
        for index, entropy in enumerate(chain.entropy)
        if index > 0 and index not in chain.forked
    ]
    return [(chains[number], index) for _, number, index in sorted(points)[:count]]


def as_tree(prompt_ids: Ids, chains: Sequence[Chain]) -> SampleTree:
    """Chains, origins among them, cut where others branch off."""
    branches: dict[tuple[int, int], list[Chain]] = defaultdict(list)
    for chain in chains:
        if chain.origin is not None:
            branches[id(chain.origin), chain.start - chain.origin.start].append(chain)
    nodes: list[Node] = []
    leaves: dict[int, Leaf] = {}

    def add(chain: Chain, parent: int) -> None:
        cuts = sorted({index for origin, index in branches if origin == id(chain)} | {0, len(chain.tokens)})
        for begin, end in pairwise(cuts):
            before, parent = parent, len(nodes)
            nodes.append(
                Node(
                    parent=before,
                    tokens=np.asarray(chain.tokens[begin:end], dtype=np.int32),
                    log_p=np.asarray(chain.log_p[begin:end], dtype=np.float32),
                    entropy=np.asarray(chain.entropy[begin:end], dtype=np.float32),
                )
            )
            for branch in branches.get((id(chain), begin), ()):
                add(branch, before)
        leaves[parent] = Leaf(mass=chain.mass, ended=chain.ended)

    for chain in chains:
        if chain.origin is None:
            add(chain, ROOT)
    return SampleTree(prompt_ids=prompt_ids, nodes=tuple(nodes), leaves=leaves)
