"""From rewards of answers to advantages: of the segments of a sample tree, or of the answers of a group.

A tree is `parents`: for every node (a segment of tokens between forks) the number of its parent, -1 for a root, parents
before their children. All trees of a prompt form one forest under a virtual root, whose value is the group's.

Masses count everywhere as if a leaf of mass m were m leaves of the same reward: a survivor of pruning stands for the
branches of its cluster. A failed leaf has no reward; it is in no mean and in no count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
GroupAdvantage = Literal["grpo", "drGrpo", "reinforcePlusPlus"]
"""The values of `rl.objective.advantage` that need no tree."""

DEVIATION_FLOOR = 1e-6
"""Added to deviations that are divided by: rewards that differ by rounding alone teach nothing."""


@dataclass(frozen=True)
class NodeValues:
    """What the leaves under each node are worth. Without a scored leaf a value is NaN and the mass 0."""

    group: float
    """Value of the virtual root."""
    nodes_S: Floats
    """Mass-weighted mean reward of the scored leaves under each node, the node itself included."""
    masses_S: Floats
    """Mass of those leaves; without pruning their number."""


def node_values(parents: Sequence[int], leaf_rewards: Mapping[int, float], masses: Mapping[int, float]) -> NodeValues:
    """The mass-weighted mean reward under every node.

    Args:
        parents: of each of the S nodes.
        leaf_rewards: by node; failed leaves are absent.
        masses: by node; 1 for a leaf that is absent.
    """
    mass_S, total_S = np.zeros(len(parents)), np.zeros(len(parents))
    for leaf, reward in leaf_rewards.items():
        mass_S[leaf] = masses.get(leaf, 1.0)
        total_S[leaf] = mass_S[leaf] * reward
    group_mass, group_total = float(mass_S.sum()), float(total_S.sum())
    for node in range(len(parents) - 1, -1, -1):
        parent = parents[node]
        assert -1 <= parent < node, "parents come before their children"
        if parent >= 0:
            mass_S[parent] += mass_S[node]
            total_S[parent] += total_S[node]
    values_S = np.divide(total_S, mass_S, out=np.full(len(parents), np.nan), where=mass_S > 0)
    return NodeValues(group_total / group_mass if group_mass else float("nan"), values_S, mass_S)


def tree_advantages(parents: Sequence[int], leaf_rewards: Mapping[int, float], masses: Mapping[int, float]) -> Floats:
    """Advantage of every node: ((V(s) - V(group)) + (V(s) - V(parent))) / sqrt(leaves(s)), TreeRL (arXiv 2506.11902).

    `leaves(s)` is the mass of the scored leaves, so that a pruned tree divides as the whole one would have. A node
    without a scored leaf has advantage 0. Arguments as of `node_values`.
    """
    values = node_values(parents, leaf_rewards, masses)
    parents_S = np.asarray(parents, dtype=np.int64)
    of_parent_S = np.where(parents_S < 0, values.group, values.nodes_S[parents_S]) if len(parents) else np.zeros(0)
    scored_S = values.masses_S > 0
    gain_S = 2 * values.nodes_S - values.group - of_parent_S
    advantages_S = np.zeros(len(parents))
    return np.divide(gain_S, np.sqrt(values.masses_S), out=advantages_S, where=scored_S)


def group_advantages(
    rewards_L: Sequence[float], kind: GroupAdvantage, masses_L: Sequence[float] | None = None
) -> Floats:
    """Advantage of each of the L scored answers of a group.

    grpo: r - mean over the deviation (arXiv 2402.03300; of the population, plus `DEVIATION_FLOOR`). drGrpo: r - mean
    (arXiv 2503.20783). reinforcePlusPlus: r - mean too, still to be divided by `batch_normalised`.
    """
    rewards = np.asarray(rewards_L, dtype=np.float64)
    if not rewards.size:
        return rewards
    centred_L = rewards - np.average(rewards, weights=masses_L)
    match kind:
        case "grpo":
            deviation = np.sqrt(np.average(centred_L**2, weights=masses_L))
            return np.asarray(centred_L / (deviation + DEVIATION_FLOOR))
        case "drGrpo" | "reinforcePlusPlus":
            return np.asarray(centred_L)
        case _:
            assert_never(kind)


def batch_normalised(advantages_B: Sequence[float] | Floats, masses_B: Sequence[float] | None = None) -> Floats:
    """The second half of REINFORCE++ with a group baseline (arXiv 2501.03262): over the answers of all groups of all
    ranks, (a - mean) over the deviation."""
    advantages = np.asarray(advantages_B, dtype=np.float64)
    return group_advantages(advantages.tolist(), "grpo", masses_B)
