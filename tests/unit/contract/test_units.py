"""Durations and sizes have the value that Kubernetes gives them."""

import re

import pytest

from ytrain_api.units import AutoDuration, Duration, Quantity

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("1m0.5s", 60.5)]
)
def test_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert Duration(text).seconds == pytest.approx(seconds)


def test_auto_duration_has_no_seconds() -> None:
    assert AutoDuration("auto").seconds is None
    assert AutoDuration("10m").seconds == 600


@pytest.mark.parametrize(
    ("text", "size"), [("100", 100), ("1k", 1000), ("500M", 500_000_000), ("100Gi", 100 * 1024**3), ("1.5Ki", 1536)]
)
def test_quantity_is_read_in_bytes(text: str, size: int) -> None:
    assert Quantity(text).bytes == size


@pytest.mark.parametrize("text", ["", "15", "m", "15 m", "1m1h", "-5m", "1d", "1234567s", "1.s"])
def test_what_is_no_duration(text: str) -> None:
    assert re.search(Duration.pattern, text) is None or len(text) < Duration.min_length
