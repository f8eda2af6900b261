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


ROWS = st.none() | st.sampled_from([60, 64, 100])
"""Steps of the next samples, or of full rows of this size."""


@given(samples=SAMPLES, batch=st.integers(1, 200), packing=st.booleans(), tokens=st.booleans(), rows=ROWS)
def test_every_label_trains_once_an_epoch(
    samples: list[tuple[int, int]], batch: int, packing: bool, tokens: bool, rows: int | None
) -> None:
    size = {"batch_tokens": batch} if tokens else {"batch_sequences": batch}
    every = {(i, label) for i, (_, labels) in enumerate(samples) for label in range(labels)}
    planned = plan(samples, packing=packing, step_row_tokens=rows, **size)
    counts = trained_labels(planned)
    assert len(list(planned.steps())) == planned.total_steps
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


@given(
    samples=SAMPLES,
    batch=st.integers(1, 200),
    after=st.integers(0, 20),
    window=st.none() | st.integers(1, 9),
    rows=ROWS,
)
def test_steps_behind_a_resume_are_the_steps_of_the_whole_run(
    samples: list[tuple[int, int]], batch: int, after: int, window: int | None, rows: int | None
) -> None:
    whole = plan(samples, batch_tokens=batch, window_tokens=window, step_row_tokens=rows)
    assert list(whole.steps(after=after)) == list(whole.steps())[after:]


@given(samples=SAMPLES, batch=st.integers(1, 200), rows=ROWS)
def test_a_step_holds_the_same_samples_packed_or_not_and_whatever_a_pass_holds(
    samples: list[tuple[int, int]], batch: int, rows: int | None
) -> None:
    def contents(packing: bool, row_tokens: int) -> list[set[int]]:
        planned = plan(samples, packing=packing, batch_tokens=batch, step_row_tokens=rows, row_tokens=row_tokens)
        return [{segment.sample for row in step.rows for segment in row} for step in planned.steps()]

    assert contents(True, 64) == contents(False, 64) == contents(True, 256)


def test_steps_of_full_rows_are_full() -> None:
    samples = [(1 + 7 * i % 64, 1) for i in range(3000)]
    planned = plan(samples, batch_tokens=256, step_row_tokens=64, epochs=1)
    *steps, last = planned.steps()
    assert {len(step.rows) for step in steps} == {4} and len(last.rows) <= 4
    filled = sum(sum(step.lengths) for step in planned.steps())
    assert filled == sum(length for length, _ in samples)
    assert filled > 0.99 * 64 * sum(len(step.rows) for step in planned.steps())
    assert all(length <= 64 for step in planned.steps() for length in step.lengths)
    of_one_pass = plan(samples, batch_tokens=256, step_row_tokens=64, row_tokens=140, epochs=1)
    assert {len(step.rows) for step in list(of_one_pass.steps())[:-1]} == {2}


def test_an_epoch_of_a_part_of_the_samples() -> None:
    parts = [np.array([0, 2, 3]), np.array([0, 1, 3])]
    for size in ({"batch_sequences": 2}, {"batch_tokens": 64, "step_row_tokens": 64}, {"window_tokens": 4}):
        planned = plan([(10, 4)] * 4, epoch_samples=lambda epoch: parts[epoch], **size)
        assert Counter(sample for sample, _ in trained_labels(planned).elements()) == {0: 8, 1: 4, 2: 4, 3: 8}


def test_numbers_epochs_and_an_early_end() -> None:
    steps = list(plan([(10, 4)] * 6, batch_sequences=4, max_steps=3).steps())
    assert [step.number for step in steps] == [1, 2, 3]
    assert [step.epoch for step in steps] == [0.5, 1.0, 1.5]
    assert [step.labels for step in steps] == [16, 8, 16]


def test_rows_hold_at_most_row_tokens_but_for_a_single_longer_sample() -> None:
    rows = [row for step in plan([(40, 5), (30, 5), (20, 5), (100, 5)], batch_sequences=4).steps() for row in step.rows]
    tokens = [sum({0: 40, 1: 30, 2: 20, 3: 100}[segment.sample] for segment in row) for row in rows]
    assert max(tokens) == 100 and all(total <= 100 for total in tokens)
