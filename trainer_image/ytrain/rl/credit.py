"""From rewards to what the branches of a step's trees weigh: who is scored, which groups teach, and the advantages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ytrain.engine.world import World
from ytrain.rl.advantages import batch_normalised, group_advantages, tree_advantages
from ytrain.rl.layout import Weights
from ytrain.rl.rewards import Failure
from ytrain.rl.tree import SampleTree
from ytrain_api.rl import Advantage


@dataclass(frozen=True)
class Group:
    """The answers to a prompt and their rewards, by leaf."""

    tree: SampleTree
    outcomes: Mapping[int, float | Failure]

    @property
    def rewards(self) -> dict[int, float]:
        """Of the leaves that were scored."""
        return {leaf: outcome for leaf, outcome in self.outcomes.items() if not isinstance(outcome, Failure)}

    @property
    def masses(self) -> dict[int, float]:
        """Of the leaves that were scored."""
        return {leaf: self.tree.leaves[leaf].mass for leaf in self.rewards}

    @property
    def is_mixed(self) -> bool:
        """Whether its rewards differ; others teach nothing."""
        return len(set(self.rewards.values())) > 1


def weigh(groups: Sequence[Group], kind: Advantage, world: World) -> list[Weights]:
    """What the scored branches of this rank's groups weigh. All ranks call it.

    Args:
        groups: those that are trained on.
        kind: `auto` is tree where there is a tree, and must have been settled before.
    """
    assert kind != "auto"
    if kind == "tree":
        return [_by_tree(group) for group in groups]
    of_groups = [group_advantages(list(group.rewards.values()), kind, list(group.masses.values())) for group in groups]
    if kind == "reinforcePlusPlus":
        of_groups = _normalised(of_groups, [list(group.masses.values()) for group in groups], world)
    return [
        Weights(
            advantages={
                leaf: np.full(len(group.tree.path(leaf)), advantage)
                for leaf, advantage in zip(group.rewards, advantages, strict=True)
            },
            masses=group.masses,
        )
        for group, advantages in zip(groups, of_groups, strict=True)
    ]


def _by_tree(group: Group) -> Weights:
    advantages_S = tree_advantages(group.tree.parents, group.rewards, group.masses)
    return Weights(
        advantages={leaf: advantages_S[group.tree.path(leaf)] for leaf in group.rewards}, masses=group.masses
    )


def _normalised(of_groups: Sequence[np.ndarray], masses: Sequence[Sequence[float]], world: World) -> list[np.ndarray]:
    """Over the answers of all groups of all ranks."""
    mine = [float(value) for advantages in of_groups for value in advantages]
    gathered = world.gather([mine, [mass for group in masses for mass in group]])
    everything = batch_normalised([v for part, _ in gathered for v in part], [m for _, part in gathered for m in part])
    first = sum(len(part) for part, _ in gathered[: world.rank])
    ends = first + np.cumsum([len(advantages) for advantages in of_groups])
    return [everything[end - len(advantages) : end] for advantages, end in zip(of_groups, ends, strict=True)]
