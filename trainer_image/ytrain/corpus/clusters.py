"""Groups records of similar meaning: mean hidden states, PCA, HDBSCAN (scikit-learn), and who stands for each group."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

FITTED = 10_000
"""Records that PCA and HDBSCAN look at, evenly spread: HDBSCAN's time grows faster than the corpus. Every other record
joins the cluster of the nearest of them."""
REPRESENTATIVES = 3


@dataclass(frozen=True)
class Clustering:
    """Where each record lies."""

    label_N: npt.NDArray[np.int64]
    """Cluster of each record; -1 belongs to none."""
    map_N2: npt.NDArray[np.float32]
    """First two principal components."""
    representatives: dict[int, list[int]]
    """Records nearest to the centre of each cluster."""


def cluster(hidden_ND: npt.NDArray[np.floating], *, min_size: int, dimensions: int) -> Clustering:
    """Cluster rows `[N, D]`; rows that are not finite, or are fewer than two clusters could have, belong to none."""
    count = len(hidden_ND)
    blocks = [hidden_ND[begin : begin + FITTED] for begin in range(0, count, FITTED)]
    finite = np.flatnonzero([row for block in blocks for row in np.isfinite(block).all(axis=1)])
    if len(finite) < count:
        return _among(cluster(hidden_ND[finite], min_size=min_size, dimensions=dimensions), finite, count)
    if count < 3:
        return Clustering(np.full(count, -1), np.zeros((count, 2), np.float32), {})
    chosen = np.unique(np.linspace(0, count - 1, min(count, FITTED)).astype(np.int64))
    fitted = np.asarray(hidden_ND[chosen], dtype=np.float32)
    reduce = PCA(min(dimensions, len(chosen), fitted.shape[1]), svd_solver="full").fit(fitted)
    reduced = np.concatenate([reduce.transform(np.asarray(block, dtype=np.float32)) for block in blocks])
    reduced = reduced.astype(np.float32)
    label = np.full(count, -1, dtype=np.int64)
    if len(chosen) >= 2 * min_size:
        label[chosen] = HDBSCAN(min_cluster_size=min_size, copy=True).fit_predict(reduced[chosen])
        others = np.setdiff1d(np.arange(count), chosen)
        if len(others):
            nearest = KNeighborsClassifier(n_neighbors=1).fit(reduced[chosen], label[chosen])
            label[others] = nearest.predict(reduced[others])
    return Clustering(label, reduced[:, :2], _representatives(reduced, label))


def _among(found: Clustering, members: npt.NDArray[np.int64], count: int) -> Clustering:
    """A clustering of some `members` of `count` records as one of them all."""
    label, where = np.full(count, -1), np.zeros((count, 2), np.float32)
    label[members], where[members] = found.label_N, found.map_N2
    named = {name: members[nearest].tolist() for name, nearest in found.representatives.items()}
    return Clustering(label, where, named)


def _representatives(reduced: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    names: Sequence[int] = [name for name in np.unique(label).tolist() if name >= 0]
    for name in names:
        members = np.flatnonzero(label == name)
        distance = np.linalg.norm(reduced[members] - reduced[members].mean(0), axis=1)
        found[name] = members[np.argsort(distance, kind="stable")[:REPRESENTATIVES]].tolist()
    return found
