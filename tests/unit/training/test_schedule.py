"""The learning rate of every step as a table."""

import pytest

from ytrain.training.schedule import ScheduleKind, learning_rate

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "warmup", "rates"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, [0.5, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("linear", 0.25, [1, 1, 2 / 3, 1 / 3]),
        ("cosine", 0.0, [1, 0.853553, 0.5, 0.146447]),
        ("cosine", 0.5, [0.5, 1, 1, 0.5]),
    ],
)
def test_rates(kind: ScheduleKind, warmup: float, rates: list[float]) -> None:
    found = [learning_rate(step, 4, peak=1.0, kind=kind, warmup_fraction=warmup) for step in (1, 2, 3, 4)]
    assert found == pytest.approx(rates, abs=1e-6)


def test_a_run_of_one_step_trains() -> None:
    assert learning_rate(1, 1, peak=1.0, kind="cosine", warmup_fraction=0.03) == 1.0
