"""What a step of reinforcement learning tells of itself: the `rl` object of its line in metrics.jsonl."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ytrain.engine.world import World
from ytrain.rl.credit import Group
from ytrain.rl.rollout import Rolled


@dataclass
class Trace:
    """Sums over this rank's labels, each counted with its mass."""

    loss: float = 0.0
    clipped: float = 0.0
    gap: float = 0.0
    largest_gap: float = 0.0
    distance: float = 0.0
    distance_labels: float = 0.0


def step_figures(
    groups: Sequence[Group], rolled: Rolled, trace: Trace, labels: float, updates: int, world: World
) -> dict[str, Any]:
    """The figures of a step over all ranks, which all call it; what cannot be told is null.

    Args:
        labels: that were learned, of all ranks.
    """
    rewards = [(group.masses[leaf], reward) for group in groups for leaf, reward in group.rewards.items()]
    leaves = [(group.tree, leaf) for group in groups for leaf in group.tree.leaves]
    entropy = sum(float(node.entropy.sum()) for group in groups for node in group.tree.nodes)
    lengths = [sum(len(tree.nodes[node].tokens) for node in tree.path(leaf)) for tree, leaf in leaves]
    names = {
        "mass": sum(mass for mass, _ in rewards),
        "reward": sum(mass * reward for mass, reward in rewards),
        "square": sum(mass * reward**2 for mass, reward in rewards),
        "groups": len(groups),
        "mixedGroups": sum(group.is_mixed for group in groups),
        "leaves": len(leaves),
        "failedRewards": len(leaves) - len(rewards),
        "truncated": sum(not tree.leaves[leaf].ended for tree, leaf in leaves),
        "answerTokens": sum(lengths),
        "aloneTokens": sum(lengths) + sum(len(tree.prompt_ids) for tree, _ in leaves) - len(leaves),
        "sampledTokens": sum(group.tree.tokens for group in groups),
        "forwardedTokens": rolled.forwarded,
        "branches": rolled.branches,
        "pruned": rolled.pruned,
        "entropy": entropy,
        "clipped": trace.clipped,
        "gap": trace.gap,
        "distance": trace.distance,
        "distanceLabels": trace.distance_labels,
    }
    total = dict(zip(names, world.sum([float(value) for value in names.values()]), strict=True))
    largest_gap = max(world.gather(trace.largest_gap))
    mean = total["reward"] / total["mass"] if total["mass"] else None
    variance = total["square"] / total["mass"] - mean**2 if mean is not None else None
    learned = labels > 0
    return {
        "rewardMean": mean,
        "rewardDeviation": None if variance is None else max(0.0, variance) ** 0.5,
        **{name: int(total[name]) for name in ("groups", "mixedGroups", "leaves", "failedRewards")},
        **{name: int(total[name]) for name in ("sampledTokens", "forwardedTokens")},
        "leavesPerThousandTokens": 1000 * total["leaves"] / max(1.0, total["sampledTokens"]),
        "answerTokens": total["answerTokens"] / max(1.0, total["leaves"]),
        "truncatedShare": total["truncated"] / max(1.0, total["leaves"]),
        "forwardedPerLeaf": total["forwardedTokens"] / max(1.0, total["leaves"]),
        "forwardedPerLeafAlone": total["aloneTokens"] / max(1.0, total["leaves"]),
        "prunedShare": total["pruned"] / total["branches"] if total["branches"] else None,
        "entropy": total["entropy"] / max(1.0, total["sampledTokens"]),
        "clipFraction": total["clipped"] / (labels * updates) if learned else None,
        "logProbGap": total["gap"] / labels if learned else None,
        "largestLogProbGap": largest_gap if learned else None,
        "klToStart": total["distance"] / total["distanceLabels"] if total["distanceLabels"] else None,
    }
