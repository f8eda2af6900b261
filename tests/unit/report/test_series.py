"""Buckets, ticks and the spelling of numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.report.series import bucketed, byte_size, duration, tick_labels, ticks

pytestmark = pytest.mark.unit

finite = st.floats(-1e9, 1e9, allow_nan=False)


def test_few_points_stay_as_they_are() -> None:
    buckets = bucketed([(1, 2.0), (2, 5.0)], 100)
    assert [(bucket.x, bucket.mean, bucket.low, bucket.high) for bucket in buckets] == [(1, 2, 2, 2), (2, 5, 5, 5)]


def test_a_spike_survives_downsampling() -> None:
    points = [(step, 50.0 if step == 7_531 else 1.0) for step in range(20_000)]
    buckets = bucketed(points, 160)
    assert len(buckets) == 160
    assert max(bucket.high for bucket in buckets) == 50.0


@given(st.lists(finite, max_size=300), st.integers(1, 50))
def test_buckets_keep_the_extremes_and_the_order(values: list[float], limit: int) -> None:
    buckets = bucketed(list(enumerate(values)), limit)
    assert len(buckets) == min(limit, len(values))
    assert [bucket.x for bucket in buckets] == sorted(bucket.x for bucket in buckets)
    if values:
        assert min(bucket.low for bucket in buckets) == min(values)
        assert max(bucket.high for bucket in buckets) == max(values)


def test_unmeasured_and_infinite_values_are_left_out() -> None:
    assert [bucket.x for bucket in bucketed([(1, None), (2, math.nan), (3, math.inf), (4, 1.0)], 9)] == [4]


@given(finite, finite)
def test_ticks_reach_over_the_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    places = ticks(low, high, 5)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert places[0] <= low + slack and places[-1] >= high - slack
    assert 2 <= len(places) <= 8


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 1, 2], ["0", "1", "2"]),
        ([0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([0, 0.25, 0.5], ["0.00", "0.25", "0.50"]),
        ([0, 2e-6, 4e-6], ["0", "2e-6", "4e-6"]),
        ([0, 10_000, 20_000], ["0", "10k", "20k"]),
        ([0, 1000, 2000], ["0", "1,000", "2,000"]),
        ([0, 2_500_000, 5_000_000], ["0.0", "2.5M", "5.0M"]),
    ],
)
def test_tick_labels(values: list[float], labels: list[str]) -> None:
    assert tick_labels(values) == labels


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(8.26, "8.3 s"), (42, "42 s"), (250, "4 min 10 s"), (7500, "2 h 05 min"), (273_600, "3 d 4 h"), (None, "unknown")],
)
def test_duration(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(12, "12 B"), (1536, "1.5 KiB"), (80 * 2**30, "80.00 GiB"), (None, "not measured")]
)
def test_byte_size(count: int | None, words: str) -> None:
    assert byte_size(count) == words
