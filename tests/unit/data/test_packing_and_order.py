"""Rows hold every sample once and little empty space; steps depend on the seed and the epoch alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.data import pack, plan_epoch
from ytrain.data.order import epoch_samples, plan_rows

pytestmark = pytest.mark.unit
ORDER = [4, 1, 3, 6, 0, 7, 2, 5]
LENGTHS = st.lists(st.integers(1, 50), max_size=80)


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([], 10, []),
        ([10, 10], 10, [[0], [1]]),
        ([3, 7, 5, 5], 10, [[1, 0], [2, 3]]),
        ([6, 5, 4, 3], 9, [[0, 3], [1, 2]]),  # best fit: 4 goes with 5, which first fit would put elsewhere
        ([2, 2, 2], 10, [[0, 1, 2]]),
    ],
)
def test_best_fit_decreasing(lengths: list[int], capacity: int, rows: list[list[int]]) -> None:
    assert pack(lengths, capacity) == rows


@given(LENGTHS, st.integers(50, 100))
def test_rows_hold_every_sample_once_and_within_their_capacity(lengths: list[int], capacity: int) -> None:
    rows = pack(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    sums = sorted(sum(lengths[index] for index in row) for row in rows)
    assert not sums or sums[-1] <= capacity
    assert len(sums) < 2 or sums[0] + sums[1] > capacity  # no two rows could be one
    assert rows == pack(np.array(lengths, dtype=np.int32), capacity)


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 1 has 11 tokens, a row holds 10"):
        pack([1, 11], 10)


@given(LENGTHS, st.integers(0, 3), st.integers(1, 200), st.booleans())
def test_an_epoch_has_every_sample_in_exactly_one_step(
    lengths: list[int], epoch: int, batch: int, by_tokens: bool
) -> None:
    limit = {"batch_tokens": batch} if by_tokens else {"batch_sequences": batch}
    steps = plan_epoch(lengths, 42, epoch, **limit)
    assert sorted(index for step in steps for index in step.tolist()) == list(range(len(lengths)))
    sizes = [sum(lengths[index] for index in step) if by_tokens else len(step) for step in steps]
    for position, (step, size) in enumerate(zip(steps, sizes, strict=True)):
        assert size <= batch or len(step) == 1
        if position + 1 < len(steps):  # full: the next sample would not have fitted
            following = lengths[steps[position + 1][0]] if by_tokens else 1
            assert size + following > batch
    again = plan_epoch(lengths, 42, epoch, **limit)
    assert all(np.array_equal(one, two) for one, two in zip(steps, again, strict=True))


def test_the_order_changes_with_seed_and_epoch() -> None:
    orders = {
        tuple(plan_epoch([1] * 20, seed, epoch, batch_sequences=20)[0].tolist()) for seed in (1, 2) for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_a_run_resumed_with_another_release_goes_on_in_the_same_order() -> None:
    assert plan_epoch([1] * 8, 42, 0, batch_sequences=8)[0].tolist() == ORDER


def test_steps_are_cut_from_one_order_whatever_their_limit() -> None:
    assert np.concatenate(plan_epoch([1] * 8, 42, 0, batch_tokens=3)).tolist() == ORDER


@given(LENGTHS.filter(bool), st.integers(0, 3), st.integers(1, 60))
def test_rows_of_an_epoch_hold_every_sample_once(lengths: list[int], epoch: int, row_tokens: int) -> None:
    order = plan_rows(lengths, 42, epoch, row_tokens=row_tokens)
    rows = [order.row(number).tolist() for number in range(len(order))]
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(row for row in rows)
    assert all(sum(lengths[index] for index in row) <= max(row_tokens, *lengths) for row in rows)


def test_rows_are_filled_in_parts_of_the_order_and_shuffled() -> None:
    lengths = [1 + 37 * i % 60 for i in range(60_000)]
    order = plan_rows(lengths, 1, 0, row_tokens=64)
    assert sum(lengths) > 0.99 * 64 * len(order)
    first = order.samples[: len(lengths) // 20]
    assert 29 < np.array(lengths)[first].mean() < 32  # long samples are packed first, and do not come first


@pytest.mark.parametrize(
    ("parts", "epochs"),
    [
        ([(3, 1.0)], [[0, 1, 2], [0, 1, 2]]),
        ([(2, 2.0), (1, 1.0)], [[0, 1, 2, 3, 4]]),
        ([(0, 0.5), (2, 1.0)], [[0, 1]]),
    ],
)
def test_whole_repeats_are_seen_whole(parts: list[tuple[int, float]], epochs: list[list[int]]) -> None:
    assert [epoch_samples(parts, 7, epoch).tolist() for epoch in range(len(epochs))] == epochs


def test_a_fraction_of_a_source_is_seen_in_turn() -> None:
    seen = [epoch_samples([(10, 0.3), (2, 1.5)], 7, epoch).tolist() for epoch in range(10)]
    assert [sum(index < 10 for index in epoch) for epoch in seen] == [3] * 10
    assert sorted(index for epoch in seen for index in epoch if index < 10) == sorted([*range(10)] * 3)
    assert [sum(index >= 10 for index in epoch) for epoch in seen] == [3] * 10
    assert seen != [epoch_samples([(10, 0.3), (2, 1.5)], 8, epoch).tolist() for epoch in range(10)]


def test_an_epoch_without_samples_has_no_rows() -> None:
    assert len(plan_rows([5], 1, 0, row_tokens=8, samples=np.empty(0, np.int64))) == 0
