"""Spread, classes, smoothing and spans, each against what it says written out naively."""

import numpy as np
import pytest

from ytrain.corpus.classes import CLASSES, Spread, classify, smoothed, suspicious_spans

pytestmark = pytest.mark.unit

RANDOM = np.random.default_rng(3)


def test_spread_of_parts_is_that_of_all_values_together() -> None:
    parts = [RANDOM.normal(5, 2, size) for size in (3, 1, 40)]
    whole, spread = np.concatenate(parts), Spread.of(parts)
    assert (spread.mean, spread.deviation) == pytest.approx((whole.mean(), whole.std()))
    assert spread.z(whole) == pytest.approx((whole - whole.mean()) / whole.std())


def test_values_that_are_not_finite_have_no_part_in_the_spread() -> None:
    spread = Spread.of([[1.0, np.nan], [np.inf, -np.inf], [3.0]])
    assert spread == Spread(2.0, 1.0)
    assert np.isnan(spread.z([np.nan])).all()
    assert np.isnan(Spread.of([[np.nan]]).mean)


def test_equal_values_are_no_distance_from_their_mean() -> None:
    assert Spread.of([[2.0, 2.0], [2.0]]).z([2.0, 2.0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("z_loss", "z_entropy", "name"),
    [
        (0.61, -0.61, "likelyWrongLabel"),
        (3.0, -0.6, "normal"),  # the threshold itself is not beyond it
        (0.6, -3.0, "normal"),
        (0.61, 0.61, "hard"),
        (-0.61, 0.61, "lucky"),
        (-0.61, -0.61, "overConfident"),
        (0.0, 0.0, "normal"),
        (5.0, 0.0, "normal"),
        (0.0, -5.0, "normal"),
    ],
)
def test_class_of_a_pair_of_scores(z_loss: float, z_entropy: float, name: str) -> None:
    assert CLASSES[classify(np.array([z_loss]), np.array([z_entropy]), 0.6)[0]] == name


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 101])
def test_smoothing_is_the_mean_of_the_neighbours_that_there_are(tokens: int) -> None:
    values = RANDOM.normal(size=17)
    before, after = (tokens - 1) // 2, tokens // 2
    expected = [values[max(0, i - before) : i + after + 1].mean() for i in range(len(values))]
    assert smoothed(values, tokens) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("divergence", "spans"),
    [
        ([], []),
        ([0.0, 1.0], []),
        ([2.0, 2.5, 1.9, 2.0], [(0, 2), (3, 4)]),
        ([1.0, 2.0, 2.0], [(1, 3)]),
        ([2.0], [(0, 1)]),
    ],
)
def test_spans_are_the_runs_that_reach_the_threshold(divergence: list[float], spans: list[tuple[int, int]]) -> None:
    assert suspicious_spans(np.array(divergence), 2.0) == spans
