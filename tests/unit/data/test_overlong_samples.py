"""Samples longer than maxTokens: what is kept, and that each label is kept once at most."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.data.overlong import Overlong, fit, split_context

pytestmark = pytest.mark.unit


def _fit(mask: list[int], max_tokens: int, policy: Overlong, context: int = 1) -> list[tuple[list[int], list[int]]]:
    pieces = fit(np.arange(len(mask), dtype=np.int32), np.array(mask, dtype=np.bool_), max_tokens, policy, context)
    return [(ids.tolist(), labels.astype(int).tolist()) for ids, labels in pieces]


@pytest.mark.parametrize(
    ("mask", "policy", "context", "expected"),
    [
        ([0, 1, 1, 1], "skip", 1, [([0, 1, 2, 3], [0, 1, 1, 1])]),
        ([0, 1, 1, 1, 1], "skip", 1, []),
        ([0, 1, 1, 1, 1], "truncate", 1, [([0, 1, 2, 3], [0, 1, 1, 1])]),
        ([0, 0, 0, 0, 1], "truncate", 1, []),
        ([0, 1, 1, 1, 1, 1], "split", 1, [([0, 1, 2, 3], [0, 1, 1, 1]), ([3, 4, 5], [0, 1, 1])]),
        ([0, 0, 0, 0, 1, 1, 1], "split", 2, [([2, 3, 4, 5], [0, 0, 1, 1]), ([4, 5, 6], [0, 0, 1])]),
    ],
)
def test_what_is_kept(
    mask: list[int], policy: Overlong, context: int, expected: list[tuple[list[int], list[int]]]
) -> None:
    assert _fit(mask, 4, policy, context) == expected


@given(mask=st.lists(st.booleans(), min_size=1, max_size=60), max_tokens=st.integers(2, 20), chat=st.booleans())
def test_split_trains_every_label_exactly_once(mask: list[bool], max_tokens: int, chat: bool) -> None:
    labels = [0, *map(int, mask[1:])]
    pieces = _fit(labels, max_tokens, "split", split_context(max_tokens, chat=chat))
    assert all(len(ids) <= max_tokens for ids, _ in pieces)
    assert len(labels) <= max_tokens or all(not mask[0] for _, mask in pieces)
    trained = [token for ids, mask in pieces for token, label in zip(ids, mask, strict=True) if label]
    assert trained == [token for token, label in enumerate(labels) if label]
