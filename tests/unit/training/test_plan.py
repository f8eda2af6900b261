"""Every label trains exactly once an epoch, whatever the batch, the packing, the windows or a resume."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.training.plan import Plan

pytestmark = pytest.mark.unit

SAMPLES = st.lists(st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), min_size=1)


def plan(samples: list[tuple[int, int]], **settings: Any) -> Plan:
    lengths, labels = np.array(samples).T
    defaults: dict[str, Any] = {
        "seed": 3, "epochs": 2, "max_steps": None, "batch_tokens": None, "batch_sequences": None, "row_tokens": 64,
        "packing": True, "window_tokens": None,
    }  # fmt: skip
    return Plan(lengths=lengths, label_counts=labels, **{**defaults, **settings})


def trained_labels(plan: Plan) -> Counter[tuple[int, int]]:
    return Counter(
        (segment.sample, label)
        for step in plan.steps()
        for row in step.rows
        for segment in row
        for label in range(segment.first_label, segment.end_label)
    )


@given(samples=SAMPLES, batch=st.integers(1, 200), packing=st.booleans(), tokens=st.booleans())
def test_every_label_trains_once_an_epoch(
    samples: list[tuple[int, int]], batch: int, packing: bool, tokens: bool
) -> None:
    size = {"batch_tokens": batch} if tokens else {"batch_sequences": batch}
    every = {(i, label) for i, (_, labels) in enumerate(samples) for label in range(labels)}
    counts = trained_labels(plan(samples, packing=packing, **size))
    assert set(counts) == every and set(counts.values()) == {2}


@given(samples=SAMPLES, window=st.integers(1, 70))
def test_the_union_of_windows_is_the_label_set(samples: list[tuple[int, int]], window: int) -> None:
    windows = plan(samples, window_tokens=window)
    steps = list(windows.steps())
    every = {(i, label) for i, (_, labels) in enumerate(samples) for label in range(labels)}
    counts = trained_labels(windows)
    assert set(counts) == every and set(counts.values()) == {2}
    assert all(1 <= step.labels <= window and len(step.rows) == 1 for step in steps)
    assert len(steps) == windows.total_steps


@given(samples=SAMPLES, batch=st.integers(1, 200), after=st.integers(0, 20), window=st.none() | st.integers(1, 9))
def test_steps_behind_a_resume_are_the_steps_of_the_whole_run(
    samples: list[tuple[int, int]], batch: int, after: int, window: int | None
) -> None:
    whole = plan(samples, batch_tokens=batch, window_tokens=window)
    assert list(whole.steps(after=after)) == list(whole.steps())[after:]


@given(samples=SAMPLES, batch=st.integers(1, 200))
def test_a_step_holds_the_same_samples_packed_or_not(samples: list[tuple[int, int]], batch: int) -> None:
    def contents(packing: bool) -> list[set[int]]:
        steps = plan(samples, packing=packing, batch_tokens=batch).steps()
        return [{segment.sample for row in step.rows for segment in row} for step in steps]

    assert contents(True) == contents(False)


def test_numbers_epochs_and_an_early_end() -> None:
    steps = list(plan([(10, 4)] * 6, batch_sequences=4, max_steps=3).steps())
    assert [step.number for step in steps] == [1, 2, 3]
    assert [step.epoch for step in steps] == [0.5, 1.0, 1.5]
    assert [step.labels for step in steps] == [16, 8, 16]


def test_rows_hold_at_most_row_tokens_but_for_a_single_longer_sample() -> None:
    rows = [row for step in plan([(40, 5), (30, 5), (20, 5), (100, 5)], batch_sequences=4).steps() for row in step.rows]
    tokens = [sum({0: 40, 1: 30, 2: 20, 3: 100}[segment.sample] for segment in row) for row in rows]
    assert max(tokens) == 100 and all(total <= 100 for total in tokens)
