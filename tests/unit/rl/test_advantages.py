"""Values and advantages against numbers worked out by hand, and what holds for every tree."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ytrain.rl.advantages import GroupAdvantage, batch_normalised, group_advantages, node_values, tree_advantages

pytestmark = pytest.mark.unit
NOTHING: dict[int, float] = {}

#  0 ─┬─ 2 (leaf, 1)          1 (leaf, 0)
#     └─ 3 ─┬─ 4 (leaf, 1)
#           └─ 5 (leaf, 0)
PARENTS = [-1, -1, 0, 0, 3, 3]
REWARDS = {1: 0.0, 2: 1.0, 4: 1.0, 5: 0.0}


def test_values_are_means_of_the_leaves() -> None:
    values = node_values(PARENTS, REWARDS, NOTHING)
    assert values.group == 0.5
    assert values.nodes_S.tolist() == pytest.approx([2 / 3, 0, 1, 0.5, 1, 0])
    assert values.masses_S.tolist() == [3, 1, 1, 2, 1, 1]


def test_masses_weigh_and_failed_leaves_do_not_count() -> None:
    values = node_values(PARENTS, {1: 0.0, 2: 1.0, 4: 0.5}, {2: 3.0})
    assert values.group == pytest.approx((3 + 0.5) / 5)
    assert values.nodes_S[:5].tolist() == pytest.approx([3.5 / 4, 0, 1, 0.5, 0.5])
    assert math.isnan(values.nodes_S[5]) and values.masses_S[5] == 0


def test_tree_advantages_equal_their_formula() -> None:
    expected = [(1 / 6 + 1 / 6) / math.sqrt(3), -1, 0.5 + 1 / 3, (0 - 1 / 6) / math.sqrt(2), 0.5 + 0.5, -0.5 - 0.5]
    assert tree_advantages(PARENTS, REWARDS, NOTHING).tolist() == pytest.approx(expected)


def test_the_divisor_counts_masses() -> None:
    #  group 3/4; node 0 has the leaf of mass 3: (1/4 + 1/4) / sqrt(3)
    assert tree_advantages([-1, -1], {0: 1.0, 1: 0.0}, {0: 3.0}).tolist() == pytest.approx([0.5 / math.sqrt(3), -1.5])


def test_what_has_no_scored_leaf_has_no_advantage() -> None:
    assert tree_advantages(PARENTS, {2: 1.0, 1: 0.0}, NOTHING)[3:].tolist() == [0, 0, 0]
    assert tree_advantages(PARENTS, {}, NOTHING).tolist() == [0] * 6
    assert tree_advantages([], {}, NOTHING).tolist() == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("grpo", [1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3), -math.sqrt(3)]),
        ("drGrpo", [0.25, 0.25, 0.25, -0.75]),
        ("reinforcePlusPlus", [0.25, 0.25, 0.25, -0.75]),
    ],
)
def test_group_advantages_equal_their_formula(kind: GroupAdvantage, expected: list[float]) -> None:
    assert group_advantages([1, 1, 1, 0], kind).tolist() == pytest.approx(expected, rel=1e-5)
    # One answer of mass 3 is as three.
    weighed = group_advantages([1, 0], kind, [3, 1]).tolist()
    assert weighed == pytest.approx([expected[0], expected[3]], rel=1e-5)


def test_reinforce_plus_plus_normalises_over_all_groups() -> None:
    centred = [*group_advantages([1, 0], "reinforcePlusPlus"), *group_advantages([4, 0], "reinforcePlusPlus")]
    deviation = math.sqrt((0.25 + 0.25 + 4 + 4) / 4)
    assert batch_normalised(centred).tolist() == pytest.approx(
        [0.5 / deviation, -0.5 / deviation, 2 / deviation, -2 / deviation], rel=1e-5
    )


@given(st.lists(st.just(0.1), max_size=9), st.sampled_from(["grpo", "drGrpo", "reinforcePlusPlus"]))
def test_equal_rewards_teach_nothing(rewards: list[float], kind: GroupAdvantage) -> None:
    advantages = group_advantages(rewards, kind)
    if kind == "reinforcePlusPlus":
        advantages = batch_normalised(advantages)
    assert np.abs(advantages).max(initial=0) < 1e-9


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[int], dict[int, float], dict[int, float]]:
    size = draw(st.integers(1, 12))
    parents = [draw(st.integers(-1, node - 1)) for node in range(size)]
    leaves = sorted(set(range(size)) - set(parents))
    rewards = {leaf: draw(st.floats(-10, 10)) for leaf in leaves if draw(st.integers(0, 4))}
    return parents, rewards, {leaf: draw(st.floats(1, 9)) for leaf in rewards}


@given(forests(), st.randoms(use_true_random=False))
def test_the_order_of_children_changes_nothing(forest: tuple, random: object) -> None:  # type: ignore[type-arg]
    parents, rewards, masses = forest
    order: list[int] = []  # new number -> old number
    open_nodes = [node for node, parent in enumerate(parents) if parent < 0]
    while open_nodes:
        node = open_nodes.pop(random.randrange(len(open_nodes)))  # type: ignore[attr-defined]
        order.append(node)
        open_nodes += [child for child, parent in enumerate(parents) if parent == node]
    number = {old: new for new, old in enumerate(order)} | {-1: -1}
    moved = tree_advantages(
        [number[parents[old]] for old in order],
        {number[leaf]: reward for leaf, reward in rewards.items()},
        {number[leaf]: mass for leaf, mass in masses.items()},
    )
    assert moved.tolist() == pytest.approx(tree_advantages(parents, rewards, masses)[order].tolist(), abs=1e-9)


@given(forests(), st.floats(-5, 5))
def test_a_constant_added_to_all_rewards_changes_nothing(forest: tuple, constant: float) -> None:  # type: ignore[type-arg]
    parents, rewards, masses = forest
    raised = {leaf: reward + constant for leaf, reward in rewards.items()}
    assert tree_advantages(parents, raised, masses) == pytest.approx(
        tree_advantages(parents, rewards, masses), abs=1e-9
    )
    equal = dict.fromkeys(rewards, constant)
    assert tree_advantages(parents, equal, masses) == pytest.approx(np.zeros(len(parents)), abs=1e-9)
