"""Sample trees: a tree trains as its branches do one by one, and sampling from a fork's cache is sampling anew."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import assert_same, random_model

from ytrain.methods.sampling_cache import sampling_cache_bytes
from ytrain.models.language_model import LanguageModel
from ytrain.objective.head import Objective, Reference, label_losses, objective_sum
from ytrain.objective.policy import PolicyWeight
from ytrain.rl.advantages import node_values
from ytrain.rl.layout import Layout, Weights, ancestor_mask, lay_out, parts, tree_row
from ytrain.rl.rollout import Request, Rolled
from ytrain.rl.sampler import TransformersRollout, _Decoding, at_temperature, drawn
from ytrain.rl.tree import ROOT, Leaf, Node, SampleTree
from ytrain_api.errors import Diverged
from ytrain_api.rl import Pruning, Rl, Rollout, Tree

pytestmark = pytest.mark.invariant
STOP = 1


def random_tree(seed: int, nodes: int = 9) -> SampleTree:
    """A tree of random shape and tokens, whose sampled log-probabilities are near the model's."""
    random = np.random.default_rng(seed)
    parents = [int(random.integers(ROOT, number)) for number in range(nodes)]
    lengths = random.integers(1, 5, nodes)
    made = tuple(
        Node(
            parent=parent,
            tokens=random.integers(3, 101, length).astype(np.int32),
            log_p=random.normal(-4.6, 0.3, length).astype(np.float32),
            entropy=random.random(length).astype(np.float32),
        )
        for parent, length in zip(parents, lengths, strict=True)
    )
    ends = set(range(nodes)) - set(parents)
    leaves = {leaf: Leaf(mass=float(random.integers(1, 4)), ended=True) for leaf in sorted(ends)}
    return SampleTree(prompt_ids=random.integers(3, 101, 6).astype(np.int32), nodes=made, leaves=leaves)


def random_weights(tree: SampleTree, seed: int) -> Weights:
    """Advantages that differ by leaf and by node, of both signs."""
    random = np.random.default_rng(seed)
    return Weights(
        advantages={leaf: random.normal(size=len(tree.path(leaf))) for leaf in tree.leaves},
        masses={leaf: end.mass for leaf, end in tree.leaves.items()},
    )


def policy_weight(layouts: list[Layout]) -> PolicyWeight:
    gain, blame, sampled = (
        torch.from_numpy(np.concatenate([getattr(layout, name) for layout in layouts]).astype(np.float32))
        for name in ("gain_R", "blame_R", "sampled_log_p_R")
    )
    return PolicyWeight(gain_R=gain, blame_R=blame, sampled_log_p_R=sampled, clip_low=0.1, clip_high=0.2)


def trained(
    model: LanguageModel, rows: list[list[Layout]], start: LanguageModel | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    """The surrogate over all rows and its gradient; with a start to hold to, the whole objective."""
    for parameter in model.trainable().values():
        parameter.grad = None
    total = 0.0
    for layouts in rows:
        row, weight = tree_row(layouts), policy_weight(layouts)
        hidden_RD, anchor, objective = model.hidden(row)[row.label_rows_R], None, Objective(weigh=weight)
        if start is not None:
            with torch.no_grad():
                anchor = Reference(hidden_RD=start.hidden(row)[row.label_rows_R], head=start.head())
            mass = torch.from_numpy(np.concatenate([layout.mass_R for layout in layouts]).astype(np.float32))
            objective = Objective(weigh=weight, anchor_weight=0.3, anchor_mass_R=mass)
        loss, statistics = objective_sum(hidden_RD, row.labels_R, model.head(), objective, start=anchor)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(weight.surrogate(statistics.loss_R).sum()) if start is None else loss.item()
    return total, {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("seed", range(3))
def test_a_tree_trains_as_its_branches_do(family: str, seed: int) -> None:
    tree, model = random_tree(seed), random_model(family)
    weights = random_weights(tree, seed)
    assert len(tree.leaves) > 2
    alone = [[lay_out(tree, [leaf], weights)] for leaf in tree.leaves]
    together = [[lay_out(tree, list(tree.leaves), weights)]]
    assert_same(trained(model, together), trained(model, alone), 1e-5)
    start = random_model(family, initializer_range=0.3)
    assert_same(trained(model, together, start), trained(model, alone, start), 1e-5)


def test_the_way_a_tree_is_parted_changes_nothing() -> None:
    tree, model = random_tree(3, nodes=14), random_model()
    weights = random_weights(tree, 3)
    whole = [lay_out(tree, list(tree.leaves), weights)]
    groups = list(parts(tree, list(tree.leaves), 20))
    assert len(groups) > 2 and sorted(leaf for group in groups for leaf in group) == list(tree.leaves)
    parted = [lay_out(tree, group, weights) for group in groups]
    assert all(part.tokens <= 20 or len(group) == 1 for part, group in zip(parted, groups, strict=True))
    assert sum(part.mass_R.sum() for part in parted) == pytest.approx(whole[0].mass_R.sum())
    assert_same(trained(model, [parted]), trained(model, [whole]), 1e-5)  # in one row, kept apart
    assert_same(trained(model, [[part] for part in parted]), trained(model, [whole]), 1e-5)


@given(seed=st.integers(0, 10_000), nodes=st.integers(1, 25))
@settings(deadline=None)
def test_a_token_sees_its_ancestors_and_itself(seed: int, nodes: int) -> None:
    tree = with_unique_tokens(random_tree(seed, nodes))
    layout = lay_out(tree, list(tree.leaves), random_weights(tree, seed))
    place = {int(token): index for index, token in enumerate(layout.input_ids_T)}
    expected = np.zeros((layout.tokens, layout.tokens), dtype=bool)
    labels = set()
    for leaf in tree.leaves:
        path = [*tree.prompt_ids.tolist(), *tree.answer(leaf).tolist()]
        for depth, token in enumerate(path[:-1]):
            assert layout.depth_T[place[token]] == depth
            expected[place[token], [place[before] for before in path[: depth + 1]]] = True
        labels |= {(place[path[i - 1]], path[i]) for i in range(len(tree.prompt_ids), len(path))}
    assert (ancestor_mask(torch.from_numpy(layout.end_T)).numpy() == expected).all()
    assert sorted(zip(layout.label_rows_R.tolist(), layout.labels_R.tolist(), strict=True)) == sorted(labels)


def with_unique_tokens(tree: SampleTree) -> SampleTree:
    """The tree with a number of its own for every token."""
    lengths = [len(tree.prompt_ids), *(len(node.tokens) for node in tree.nodes)]
    prompt, *tokens = np.split(np.arange(sum(lengths), dtype=np.int32), np.cumsum(lengths)[:-1])
    nodes = tuple(replace(node, tokens=of_node) for node, of_node in zip(tree.nodes, tokens, strict=True))
    return replace(tree, prompt_ids=prompt, nodes=nodes)


def sampler(model: LanguageModel, tree: Tree | None, **rollout: Any) -> TransformersRollout:
    asked = {"chains": 3, "max_new_tokens": 10, "temperature": 0.7} | rollout
    return TransformersRollout(model, Rollout(**asked), tree, [STOP])


def requests(lengths: tuple[int, ...] = (7, 3, 12)) -> list[Request]:
    random = np.random.default_rng(5)
    return [Request(random.integers(3, 101, n).astype(np.int32), (1, 2, i)) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_what_a_fork_samples_has_the_probabilities_of_sampling_anew(family: str) -> None:
    model = random_model(family)
    rolled = sampler(model, Tree(rounds=3, forks=2, branches=2)).sample(requests())
    assert all(len(tree.leaves) == 3 + 3 * 2 * 2 for tree in rolled.trees)
    head = at_temperature(model.head(), 0.7)
    for tree in rolled.trees:
        layout = lay_out(tree, list(tree.leaves), random_weights(tree, 0))
        for leaf in tree.leaves:
            row = tree_row([lay_out(tree, [leaf], random_weights(tree, 0))])
            with model.evaluating():
                loss_R, entropy_R = label_losses(model.hidden(row)[row.label_rows_R], row.labels_R, head)
            for name, expected_R in (("log_p", -loss_R), ("entropy", entropy_R)):
                sampled_R = np.concatenate([getattr(tree.nodes[node], name) for node in tree.path(leaf)])
                np.testing.assert_allclose(sampled_R, expected_R.numpy(), atol=1e-4, err_msg=name)
        assert len(layout.labels_R) == tree.tokens


def test_answers_do_not_depend_on_what_is_sampled_with_them() -> None:
    engine = sampler(random_model(), Tree(rounds=2, forks=2, branches=3, pruning=Pruning(lookahead_tokens=3)))
    together, alone = engine.sample(requests()), [engine.sample([request]) for request in requests()]
    assert together.forwarded == sum(part.forwarded for part in alone)
    assert together.pruned == sum(part.pruned for part in alone)
    for tree, part in zip(together.trees, alone, strict=True):
        (other,) = part.trees
        assert tree.parents == other.parents and tree.leaves == other.leaves
        for node, same in zip(tree.nodes, other.nodes, strict=True):
            assert node.tokens.tolist() == same.tokens.tolist()


def test_a_fork_forwards_one_token_of_what_it_shares() -> None:
    engine = sampler(random_model(), Tree(rounds=1, forks=2, branches=2))
    rolled = engine.sample(requests())
    prompts = sum(len(tree.prompt_ids) for tree in rolled.trees)
    # The last token of every leaf is never forwarded; every branch forwards the token before it once more.
    leaves = sum(len(tree.leaves) for tree in rolled.trees)
    assert rolled.forwarded == prompts + sum(tree.tokens for tree in rolled.trees) - leaves + rolled.branches


@pytest.mark.parametrize(
    "tree", [None, Tree(rounds=1, forks=2, branches=2), Tree(rounds=2, forks=2, branches=4)], ids=["chains", "1", "2"]
)
def test_the_cache_is_at_most_as_large_as_foretold(tree: Tree | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Rollout(prompts_per_step=3, chains=4, max_new_tokens=12)
    peak, _ = sampled_with(rollout, tree, monkeypatch)
    rl = Rl.model_validate({"reward": {"builtin": {"kind": "exact"}}, "rollout": rollout, "tree": tree})
    longest = max(len(request.prompt_ids) for request in requests())
    foretold = sampling_cache_bytes(rl, random_model().module.config, longest, torch.float32)
    assert 0.6 * foretold < peak <= foretold


def test_a_tree_computes_less_than_as_many_chains_and_holds_a_little_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(rounds=1, forks=3, branches=2)
    of_tree, trees = sampled_with(Rollout(chains=6, max_new_tokens=30), tree, monkeypatch)
    of_chains, chains = sampled_with(Rollout(chains=12, max_new_tokens=30), None, monkeypatch)
    assert [len(one.leaves) for one in trees.trees] == [len(one.leaves) for one in chains.trees] == [12] * 3
    assert trees.forwarded < 0.9 * chains.forwarded
    # What is kept of six chains, and six branches that wait for one another, against twelve chains.
    assert of_tree < 1.3 * of_chains


def sampled_with(rollout: Rollout, tree: Tree | None, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Rolled]:
    """Most bytes of keys and values that were held at a time, and what was sampled."""
    seen, draw = [0], _Decoding._draw

    def measured(decoding: _Decoding, batch: Any) -> list[int]:
        kept = [tensor for cache in decoding._caches.values() for layer in cache for tensor in layer]
        live = [tensor for layer in batch.cache.layers for tensor in (layer.keys, layer.values)]
        seen.append(sum(tensor.nbytes for tensor in (*kept, *live)))
        return draw(decoding, batch)

    with monkeypatch.context() as patch:
        patch.setattr(_Decoding, "_draw", measured)
        rolled = TransformersRollout(random_model(), rollout, tree, []).sample(requests())
    return max(seen), rolled


def test_every_token_is_a_sign_of_life() -> None:
    beats: list[None] = []
    engine = TransformersRollout(
        random_model(), Rollout(chains=2, max_new_tokens=9), None, [], beat=lambda: beats.append(None)
    )
    engine.sample(requests())
    assert len(beats) == 9


def test_pruning_keeps_the_mass_of_all_branches() -> None:
    pruning = Pruning(lookahead_tokens=2, distance=2.0)  # all siblings are alike
    rolled = sampler(random_model(), Tree(rounds=1, forks=2, branches=4, pruning=pruning)).sample(requests())
    assert rolled.branches == 3 * 2 * 4 and rolled.pruned == 3 * 2 * 3
    for tree in rolled.trees:
        assert sorted(leaf.mass for leaf in tree.leaves.values()) == [1, 1, 1, 4, 4]


def test_tokens_are_drawn_with_their_probabilities() -> None:
    p_BV = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).expand(10_000, 4)
    draws_B = torch.from_numpy((np.arange(10_000) + 0.5) / 10_000).float()
    assert torch.bincount(drawn(p_BV, draws_B, 1.0)[:, 0], minlength=4).tolist() == [5000, 0, 3000, 2000]
    assert torch.bincount(drawn(p_BV, draws_B, 0.7)[:, 0], minlength=4).tolist() == [6250, 0, 3750, 0]
    assert torch.bincount(drawn(p_BV, draws_B, 0.1)[:, 0], minlength=4).tolist() == [10_000, 0, 0, 0]


@pytest.mark.parametrize(("top_p", "last"), [(1.0, 2), (0.6, 1)])
def test_a_draw_that_rounds_to_one_takes_the_last_token_there_is(top_p: float, last: int) -> None:
    p_BV, draws_B = torch.tensor([[0.5, 0.3, 0.2, 0.0, 0.0]]), torch.tensor([1 - 1e-9])
    assert draws_B.item() == 1.0
    assert drawn(p_BV, draws_B, top_p).tolist() == [[last]]


@pytest.mark.parametrize(
    ("pruning", "tokens", "merged"),
    [
        (None, 2, (0.0, 0.0)),
        (Pruning(lookahead_tokens=1), 2, (2 / 3, 2 / 3)),  # all branches end with the forked token, so all are alike
        (Pruning(lookahead_tokens=1, distance=0.9), 3, (0.5, 0.66)),
    ],
)
def test_values_of_pruned_trees_are_right_in_expectation(
    pruning: Pruning | None, tokens: int, merged: tuple[float, float]
) -> None:
    """The reward hangs on the second token, whose expectation the model tells exactly; 600 trees, four deviations."""
    model = random_model()
    prompt = requests((6,))[0].prompt_ids
    rollout = Rollout(chains=1, max_new_tokens=tokens, temperature=1.0)
    engine = TransformersRollout(model, rollout, Tree(rounds=1, forks=1, branches=3, pruning=pruning), [])
    rolled = engine.sample([Request(prompt, (9, number)) for number in range(600)])
    assert merged[0] <= rolled.pruned / rolled.branches <= merged[1]
    values = []
    for tree in rolled.trees:
        rewards = {leaf: float(tree.answer(leaf)[1] % 5) for leaf in tree.leaves}
        masses = {leaf: end.mass for leaf, end in tree.leaves.items()}
        assert sum(masses.values()) == 4
        values.append(node_values(tree.parents, rewards, masses).group)
    error = np.std(values) / np.sqrt(len(values))
    assert np.mean(values) == pytest.approx(expected_reward(model, prompt), abs=4 * error)
    assert error < 0.06


def expected_reward(model: LanguageModel, prompt: np.ndarray) -> float:
    """The mean of `second token % 5` over all answers of two tokens, by enumeration."""
    vocabulary = 101
    with model.generating() as module:
        first_V = module(torch.tensor([prompt.tolist()])).logits[0, -1].double().softmax(0)
        pairs_VT = torch.tensor([[*prompt.tolist(), token] for token in range(vocabulary)])
        second_VV = module(pairs_VT).logits[:, -1].double().softmax(-1)
    return float(first_V @ second_VV @ (torch.arange(vocabulary) % 5).double())


def test_logits_that_are_not_finite_end_the_run() -> None:
    model = random_model()
    with torch.no_grad():
        model.head().weight_VD[5] = float("nan")
    with pytest.raises(Diverged, match=r"logits are not finite in torch.float32 .* optimization.learningRate"):
        sampler(model, None).sample(requests())
