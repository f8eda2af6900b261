"""Merges branches of a fork that say the same: clusters by embedding, and one survivor a cluster with its mass.

A survivor is drawn uniformly and stands for all of its cluster, so the expected mass-weighted mean over survivors
is the mean over branches: exactly where every branch ends in equally many scored leaves, else as a ratio estimate.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def clusters(embeddings_BD: NDArray[np.floating], distance: float) -> Ints:
    """A cluster's number for each of B branches, by average linkage on cosine distance.

    Args:
        embeddings_BD: a vector for each branch. Zero vectors equal one another and are at distance 1 from all others.
        distance: clusters whose mean distance is below are merged, 0 to 2.
    """
    if len(embeddings_BD) < 2:
        return np.zeros(len(embeddings_BD), dtype=np.int64)
    from sklearn.cluster import AgglomerativeClustering  # about a second, for jobs that prune only

    linkage = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=distance
    )
    return np.asarray(linkage.fit_predict(_cosine_distances(embeddings_BD)), dtype=np.int64)


def survivors(labels_B: Ints, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Draws one branch of each cluster, uniformly.

    Returns:
        The branches that are kept, ascending, and the mass of each: the number of branches in its cluster.
    """
    members = [np.flatnonzero(labels_B == label) for label in np.unique(labels_B)]
    drawn = sorted((int(rng.choice(branches)), float(len(branches))) for branches in members)
    kept, masses = [branch for branch, _ in drawn], [mass for _, mass in drawn]
    return np.asarray(kept, dtype=np.int64), np.asarray(masses, dtype=np.float64)


def _cosine_distances(embeddings_BD: NDArray[np.floating]) -> Floats:
    vectors = np.asarray(embeddings_BD, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    distances = np.clip(1.0 - units @ units.T, 0.0, 2.0)
    zero = norms[:, 0] == 0
    distances[np.ix_(zero, zero)] = 0.0
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)
