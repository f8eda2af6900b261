"""Lays out the trees of sampled answers for the page: each a list of rows, a row a segment of text between two forks.

Which trees and how much of each is decided here, so that a page stays small; what they look like is the template's.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ytrain.report.record import RunRecord
from ytrain.report.run_files import RewardFigures, SampledAnswers, SampledLeaf, SampledNode

SHOWN_TREES = 8
"""The first, the last, and some between."""

SHOWN_ANSWERS = 40
"""Of a tree; the others are counted."""

TEXT_ENDS = (200, 120)
"""Characters that are shown of the beginning and the end of a segment: answers often conclude in their last words."""

PROMPT_ENDS = (400, 200)
"""Likewise of a prompt."""

FIRST_WORD = re.compile(r"\s*(?:\w{1,24}|\S)")


@dataclass(frozen=True)
class Excerpt:
    """A text, or its two ends and the number of characters left out between."""

    head: str
    omitted: int = 0
    tail: str = ""


@dataclass(frozen=True)
class ShownRow:
    """A segment, `depth` forks behind the prompt.

    `mark` is the word that a branch begins with and `entropy` that of its first token in nats; both are of branches
    alone. `reward` is that of the leaf, else the mean over the `answers` that go on from here, by mass.
    """

    depth: int
    mark: str
    entropy: float
    text: Excerpt
    reward: float | None
    tint: int
    """Strength of the reward's colour in %, from the lowest to the highest reward of all shown trees."""
    answers: int
    leaf: SampledLeaf | None


@dataclass(frozen=True)
class ShownTree:
    """The tree of a step; `shape` says it in words, `reward` is the mean by mass, `hidden` answers have no row."""

    step: int
    place: str
    prompt: Excerpt
    shape: str
    reward: float | None
    rows: tuple[ShownRow, ...]
    hidden: int


def shown_trees(record: RunRecord) -> list[ShownTree]:
    """The trees that the page shows, in the order of their steps."""
    chosen = [record.samples[index] for index in spread(len(record.samples), SHOWN_TREES)]
    rewards = [leaf.reward for answers in chosen for leaf in answers.leaves if leaf.reward is not None]
    scale = (min(rewards, default=0.0), max(rewards, default=0.0))
    figures = {metrics.step: metrics.rl for metrics in record.metrics}
    return [_shown(_Tree(answers), figures.get(answers.step), scale) for answers in chosen]


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` (two or more) indices below `count`, evenly apart, with the first and the last."""
    if count <= limit:
        return list(range(count))
    return [index * (count - 1) // (limit - 1) for index in range(limit)]


def excerpt(text: str, ends: tuple[int, int]) -> Excerpt:
    """The text cut to its `ends`, if that leaves out anything, and made visible."""
    head, tail = ends
    if len(text) <= head + tail:
        return Excerpt(visible(text))
    return Excerpt(visible(text[:head]), len(text) - head - tail, visible(text[-tail:]))


def visible(text: str) -> str:
    """The text on one line: line breaks as ↵, other control characters as their pictures in Unicode."""
    broken = text.replace("\r\n", "\n").replace("\n", "↵ ")
    return "".join(chr(0x2400 + ord(one)) if ord(one) < 0x20 else one for one in broken)


@dataclass(frozen=True)
class _Tree:
    """The answers with what follows from their shape; numbers are those of nodes, -1 is the prompt."""

    answers: SampledAnswers

    @cached_property
    def leaves(self) -> dict[int, SampledLeaf]:
        return {leaf.node: leaf for leaf in self.answers.leaves}

    @cached_property
    def children(self) -> dict[int, list[int]]:
        children: dict[int, list[int]] = {number: [] for number in range(-1, len(self.answers.nodes))}
        for number, node in enumerate(self.answers.nodes):
            children[node.parent].append(number)
        return children

    @cached_property
    def ends(self) -> dict[int, list[SampledLeaf]]:
        """The leaves behind each node."""
        ends: dict[int, list[SampledLeaf]] = {number: [] for number in self.children}
        for number in reversed(range(len(self.answers.nodes))):
            ends[number] += [self.leaves[number]] if number in self.leaves else []
            ends[self.answers.nodes[number].parent] += ends[number]
        return ends

    def reward(self, number: int) -> float | None:
        """Mean by mass over the rewarded answers behind a node."""
        rewarded = [(leaf.mass, leaf.reward) for leaf in self.ends[number] if leaf.reward is not None]
        return sum(m * r for m, r in rewarded) / sum(m for m, _ in rewarded) if rewarded else None

    def segments(self) -> Iterator[tuple[int, list[int]]]:
        """Depth and nodes of each stretch without forks, a branch after what it grows from."""
        waiting = [(0, number) for number in reversed(self.children[-1])]
        while waiting:
            depth, number = waiting.pop()
            run = [number]
            while len(self.children[run[-1]]) == 1:  # its siblings were merged into it by pruning
                run += self.children[run[-1]]
            yield depth, run
            waiting += [(depth + 1, child) for child in reversed(self.children[run[-1]])]


def _shown(tree: _Tree, figures: RewardFigures | None, scale: tuple[float, float]) -> ShownTree:
    rows: list[ShownRow] = []
    shown = 0
    for depth, run in tree.segments():
        rows.append(_row(tree, depth, run, scale))
        shown += rows[-1].leaf is not None
        if shown == SHOWN_ANSWERS:
            break
    answers = tree.answers
    return ShownTree(
        step=answers.step,
        place=answers.place,
        prompt=excerpt(answers.prompt, PROMPT_ENDS),
        shape=_shape(tree, figures),
        reward=tree.reward(-1),
        rows=tuple(rows),
        hidden=len(answers.leaves) - shown,
    )


def _row(tree: _Tree, depth: int, run: Sequence[int], scale: tuple[float, float]) -> ShownRow:
    nodes: list[SampledNode] = [tree.answers.nodes[number] for number in run]
    text = "".join(node.text for node in nodes)
    first = FIRST_WORD.match(text) if depth else None
    mark = first.group() if first else ""
    reward = tree.reward(run[-1])
    low, high = scale
    return ShownRow(
        depth=depth,
        mark=visible(mark),
        entropy=nodes[0].entropy,
        text=excerpt(text[len(mark) :], TEXT_ENDS),
        reward=reward,
        tint=round(100 * (reward - low) / (high - low)) if reward is not None and high > low else 0,
        answers=len(tree.ends[run[-1]]),
        leaf=tree.leaves.get(run[-1]),
    )


def _shape(tree: _Tree, figures: RewardFigures | None) -> str:
    """How the answers hang together and what they cost, in sentences."""
    nodes, leaves = tree.answers.nodes, tree.answers.leaves
    forks = sum(len(children) > 1 for number, children in tree.children.items() if number >= 0)
    sampled = sum(node.tokens for node in nodes)
    alone = sum(node.tokens * len(tree.ends[number]) for number, node in enumerate(nodes))
    words = [f"{_counted(len(leaves), 'answer')}, {sampled:,} tokens sampled."]
    if forks:
        beginnings = _counted(len(tree.children[-1]), "beginning")
        words = [
            f"{_counted(len(leaves), 'answer')} from {beginnings} and {_counted(forks, 'fork')}: {sampled:,} tokens "
            f"sampled, where answers that share nothing would have {alone:,}."
        ]
    stands_for = sum(leaf.mass for leaf in leaves)
    if abs(stands_for - len(leaves)) > 1e-6:
        words.append(f"With those that pruning merged into them they are {stands_for:.4g}.")
    if failed := sum(leaf.reward is None for leaf in leaves):
        words.append(f"{failed} without a reward.")
    if figures and figures.forwarded_per_leaf is not None and figures.forwarded_per_leaf_alone is not None:
        words.append(
            f"All prompts of the step: {figures.forwarded_per_leaf:,.1f} tokens forwarded per answer instead of "
            f"{figures.forwarded_per_leaf_alone:,.1f}."
        )
    return " ".join(words)


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
