"""What samples of a row begin with in common is forwarded once, and everything is as if it were not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import FAMILIES, Tokens, assert_same, loss_and_gradients, random_model, segments

from ytrain.data.prefixes import prefix_tree
from ytrain.data.rows import LEAST_SHARED, Segment, build_row

pytestmark = pytest.mark.invariant
TOLERANCE = 2e-5
LEAST = LEAST_SHARED["cpu"]
FEW, MANY = LEAST - 1, LEAST + 5


def similar_samples() -> list[Tokens]:
    """Two families with a system prompt in common, a repeated sample, one that another goes on from, and a stranger."""
    random = np.random.default_rng(0)

    def some(count: int) -> np.ndarray:
        return random.integers(3, 101, count).astype(np.int32)

    system, first, second, few = some(MANY), some(MANY), some(LEAST + 1), some(FEW)
    ids = [
        np.concatenate([system, first, some(6)]),
        some(11),
        np.concatenate([system, second, some(LEAST + 2)]),
        np.concatenate([system, first, some(9)]),
        np.concatenate([system, some(4)]),
        np.concatenate([few, some(5)]),
        np.concatenate([few, some(2)]),
        np.concatenate([system, second]),
    ]
    ids.append(ids[2])
    ids.append(np.concatenate([ids[2], some(LEAST)]))
    samples = [Tokens(each, np.arange(len(each)) >= max(1, len(each) - 5)) for each in ids]
    samples[3] = Tokens(ids[3], np.arange(len(ids[3])) % 3 == 1)  # labels in what it shares, as no other has
    return samples


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_that_shares_equals_samples_alone(family: str) -> None:
    model, samples = random_model(family, **FAMILIES[family]), similar_samples()
    every = segments(samples)
    row = build_row(samples, every)
    assert row.paths is not None and max(map(len, row.paths)) == 4
    assert row.tokens > row.input_ids_1T.shape[1] == row.boundaries[-1]
    alone = loss_and_gradients(model, samples, [[segment] for segment in every])
    assert_same(loss_and_gradients(model, samples, [every]), alone, TOLERANCE)


def test_windows_of_one_sample_share_what_comes_before_them() -> None:
    random = np.random.default_rng(1)
    sample = Tokens(random.integers(3, 101, 60).astype(np.int32), np.arange(60) >= 20)
    windows = [Segment(0, first, first + 10) for first in range(0, 40, 10)]
    row = build_row([sample], windows)
    assert row.input_ids_1T.shape[1] == 59
    model = random_model()
    alone = loss_and_gradients(model, [sample], [[window] for window in windows])
    assert_same(loss_and_gradients(model, [sample], [windows]), alone, TOLERANCE)


def test_labels_stay_in_the_order_of_their_segments() -> None:
    samples = similar_samples()
    row = build_row(samples, segments(samples))
    wanted = np.concatenate([sample.input_ids[sample.supervised] for sample in samples])
    assert torch.equal(row.labels_R, torch.from_numpy(wanted.astype(np.int64)))


@given(
    beginnings=st.lists(st.lists(st.integers(0, 3), max_size=30), min_size=1, max_size=4),
    parts=st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=20)), min_size=1),
)
def test_a_tree_spells_its_sequences(beginnings: list[list[int]], parts: list[tuple[int, list[int]]]) -> None:
    sequences = [np.array(beginnings[chosen % len(beginnings)] + rest, dtype=np.int32) for chosen, rest in parts]
    nodes, ends = prefix_tree(sequences, LEAST)
    for sequence, end in zip(sequences, ends, strict=True):
        path, node = [], end
        while True:
            path.append(nodes[node])
            parent = nodes[node].parent
            if parent is None:
                break
            assert parent < node
            node = parent
        assert np.array_equal(np.concatenate([each.ids for each in reversed(path)]), sequence)
        assert path[0].depth + len(path[0].ids) == len(sequence)
    assert all(len(node.ids) for node in nodes)
    tokens, alone = sum(len(node.ids) for node in nodes), sum(map(len, sequences))
    groups = sum(any(node.parent == number for node in nodes) for number in range(len(nodes)))
    assert tokens <= alone - groups * LEAST
