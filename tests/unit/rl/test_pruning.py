"""Clusters of branches, and that pruning leaves the value of a node unbiased."""

import math

import numpy as np
import pytest

from ytrain.rl.advantages import node_values
from ytrain.rl.pruning import clusters, survivors

pytestmark = pytest.mark.unit


def same(labels: np.ndarray) -> list[list[int]]:
    """The branches of each cluster."""
    return sorted(np.flatnonzero(labels == label).tolist() for label in np.unique(labels))


@pytest.mark.parametrize(
    ("embeddings", "expected"),
    [
        (np.zeros((0, 2)), []),
        ([[1, 0]], [[0]]),
        ([[1, 0], [2, 0], [3, 0]], [[0, 1, 2]]),
        ([[1, 0], [0, 1], [1, 0.01], [-1, 0]], [[0, 2], [1], [3]]),
        ([[0, 0], [1, 0], [0, 0]], [[0, 2], [1]]),
        ([[0, 0], [0, 0]], [[0, 1]]),
    ],
)
def test_clusters(embeddings: object, expected: list[list[int]]) -> None:
    assert same(clusters(np.asarray(embeddings, dtype=float), 0.1)) == expected


def test_linkage_is_average() -> None:
    """Distances 0.1 between neighbours, 0.38 between the ends: the third is at 0.24 from the first two on average."""
    angles = np.arccos(0.9) * np.arange(3)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert len(same(clusters(embeddings, 0.22))) == 2
    assert len(same(clusters(embeddings, 0.26))) == 1


def test_a_survivor_of_each_cluster_carries_its_mass() -> None:
    labels = np.array([2, 0, 2, 1, 2])
    drawn = set()
    for seed in range(30):
        kept, masses = survivors(labels, np.random.default_rng(seed))
        assert kept.tolist() == sorted(kept.tolist())
        assert {labels[branch]: mass for branch, mass in zip(kept, masses, strict=True)} == {2: 3, 0: 1, 1: 1}
        drawn |= set(kept.tolist())
    assert drawn == {0, 1, 2, 3, 4}


def test_values_stay_unbiased_by_the_masses_alone() -> None:
    """A policy that takes the way of reward 1 in 80 of 100 cases and else one of reward 0, with noise on both, so that
    the true value is 0.8. Six branches a fork; the difference of a fork's value with and without pruning must be 0 on
    average, within four standard errors. Without masses both ways would count alike, which the same figures show."""
    with_masses, without, values = [], [], []
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        good = rng.random(6) < 0.8
        rewards = good + 0.3 * rng.standard_normal(6)
        embeddings = np.where(good[:, None], [1.0, 0.0], [0.0, 1.0]) + 0.01 * rng.standard_normal((6, 2))
        full = node_values([-1, *[0] * 6], {1 + i: r for i, r in enumerate(rewards)}, {}).nodes_S[0]
        kept, masses = survivors(clusters(embeddings, 0.1), rng)
        leaves = {1 + int(i): float(rewards[i]) for i in kept}
        tree = [-1, *[0] * 6]
        carried = dict(zip(leaves, masses.tolist(), strict=True))
        with_masses.append(node_values(tree, leaves, carried).nodes_S[0] - full)
        without.append(node_values(tree, leaves, {}).nodes_S[0] - full)
        values.append(node_values(tree, leaves, carried).nodes_S[0])

    def standard_errors(sample: list[float], expected: float = 0.0) -> float:
        return abs(float(np.mean(sample)) - expected) / (float(np.std(sample)) / math.sqrt(len(sample)))

    assert standard_errors(with_masses) < 4
    assert standard_errors(values, 0.8) < 4
    assert standard_errors(without) > 20
