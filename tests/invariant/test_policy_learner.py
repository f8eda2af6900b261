"""A step of reinforcement learning against its definition: branch by branch, with transformers' own forward pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from small_models import assert_same, random_model

from ytrain.data.rows import Segment
from ytrain.engine.base import OptimizerSettings
from ytrain.engine.torch_engine import TorchEngine
from ytrain.engine.world import World
from ytrain.models.language_model import LanguageModel
from ytrain.objective.weights import nlirg
from ytrain.rl.learner import TOP_ENTROPY_SHARE, PolicyLearner
from ytrain.rl.prompts import Prompt
from ytrain.rl.rewards import Failure, Sample
from ytrain.rl.rollout import Request
from ytrain.rl.sampler import TransformersRollout
from ytrain.rl.tree import SampleTree
from ytrain.rl.watch import Watch
from ytrain.training.plan import Step
from ytrain_api.rl import Objective, Pruning, Rollout, Tree

pytestmark = pytest.mark.invariant
STOP, TEMPERATURE, SEED = 1, 0.7, 4
UNIFORM = "uniform"
TREE = Tree(rounds=2, forks=2, branches=3, pruning=Pruning(lookahead_tokens=2, distance=0.7))


class Rewards:
    """An answer is worth its numbers modulo 5, one that ends in a number divisible by 4 cannot be scored; the
    answers to one prompt are all worth the same."""

    def score(self, items: Sequence[Sample]) -> list[float | Failure]:
        return [reward(item.answer, item.prompt) for item in items]


def reward(answer: str, prompt: str) -> float | Failure:
    ids = [int(word) for word in answer.split()]
    if prompt == UNIFORM:
        return 1.0
    return Failure("it cannot be scored") if ids[-1] % 4 == 0 else sum(number % 5 for number in ids) / len(ids)


class RecordingEngine(TorchEngine):
    """Keeps the gradient of its first step."""

    gradient: dict[str, torch.Tensor] | None = None

    def step(self, **settings: Any) -> float:
        if self.gradient is None:
            self.gradient = {name: p.grad.clone() for name, p in self._parameters.items() if p.grad is not None}
        return super().step(**settings)


def prompts() -> list[Prompt]:
    random = np.random.default_rng(1)
    return [
        Prompt(ids=random.integers(3, 101, length).astype(np.int32), text=text, record={}, place="here")
        for length, text in ((5, "one"), (9, UNIFORM), (3, "other"))
    ]


def step_of(model: LanguageModel, objective: Objective) -> tuple[dict[str, Any], dict[str, torch.Tensor], Any]:
    """The figures of a step, its gradient, and the trees that it sampled."""
    asked = prompts()
    rollout = TransformersRollout(
        model, Rollout(chains=3, max_new_tokens=9, temperature=TEMPERATURE), TREE, stop_ids=[STOP]
    )
    trees = rollout.sample([Request(prompt.ids, (SEED, 1, index)) for index, prompt in enumerate(asked)]).trees
    engine = RecordingEngine(model.trainable(), OptimizerSettings(weight_decay=0.0, gradient_clip=0.0))
    learner = PolicyLearner(
        model=model,
        engine=engine,
        world=World(),
        plan=None,  # type: ignore[arg-type]  # steps come from here
        prompts=asked,  # type: ignore[arg-type]
        rollout=rollout,
        rewards=Rewards(),  # type: ignore[arg-type]
        settings=objective,
        gate=nlirg() if objective.gate == "nlirg" else None,
        temperature=TEMPERATURE,
        updates=1,
        row_tokens=64,
        seed=SEED,
        decode=lambda ids: " ".join(map(str, ids.tolist())),
        start=None,
        watch=Watch(world=World(), note=lambda _: None, total_steps=1),
    )
    segments = tuple(Segment(index, 0, 1) for index in range(len(asked)))
    step = Step(number=1, epoch=1.0, rows=(segments,), labels=0, lengths=(0,))
    learned = learner.learn(step, 1e-3)
    assert engine.gradient is not None
    return dict(learned.figures), engine.gradient, list(zip(trees, asked, strict=True))


def expected(model: LanguageModel, groups: Any, objective: Objective) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradient and number of labels by the definition."""
    scored = []
    for tree, prompt in groups:
        texts = {leaf: " ".join(map(str, tree.answer(leaf).tolist())) for leaf in tree.leaves}
        rewards = {leaf: reward(text, prompt.text) for leaf, text in texts.items()}
        kept = {leaf: value for leaf, value in rewards.items() if not isinstance(value, Failure)}
        if len(set(kept.values())) > 1 or (kept and not objective.skip_uniform_groups):
            scored.append((tree, kept))
    nodes = [
        tree.nodes[node] for tree, kept in scored for node in sorted({n for leaf in kept for n in tree.path(leaf)})
    ]
    entropies = np.sort(np.concatenate([node.entropy for node in nodes]).round(3))
    limit = entropies[-round(TOP_ENTROPY_SHARE * len(entropies))]

    advantages = [
        {leaf: by_definition(tree, kept, leaf, objective.advantage) for leaf in kept} for tree, kept in scored
    ]
    if objective.advantage == "reinforcePlusPlus":
        weighed = [
            (a[leaf][0], t.leaves[leaf].mass) for (t, k), a in zip(scored, advantages, strict=True) for leaf in k
        ]
        values, masses = map(np.asarray, zip(*weighed, strict=True))
        mean = (masses * values).sum() / masses.sum()
        deviation = np.sqrt((masses * (values - mean) ** 2).sum() / masses.sum())
        advantages = [{leaf: (a - mean) / deviation for leaf, a in of_group.items()} for of_group in advantages]

    model.module.set_attn_implementation("eager")
    total, labels = torch.zeros(()), 0.0
    for (tree, kept), of_group in zip(scored, advantages, strict=True):
        for leaf in kept:
            path, mass = tree.path(leaf), tree.leaves[leaf].mass
            ids = torch.from_numpy(np.concatenate([tree.prompt_ids, tree.answer(leaf)]).astype(np.int64))
            logits = model.module(input_ids=ids[None]).logits[0] / TEMPERATURE
            log_p = logits.log_softmax(-1)[len(tree.prompt_ids) - 1 : -1].gather(1, ids[len(tree.prompt_ids) :, None])[
                :, 0
            ]
            sampled, entropy = (
                torch.from_numpy(np.concatenate([getattr(tree.nodes[node], name) for node in path]))
                for name in ("log_p", "entropy")
            )
            gate = torch.ones(len(log_p))
            if objective.gate == "entropy":
                gate = torch.from_numpy((entropy.numpy().round(3) >= limit).astype(np.float32))
            elif objective.gate == "nlirg":
                gate = nlirg()(-sampled)
            lengths = [len(tree.nodes[node].tokens) for node in path]
            advantage = torch.from_numpy(np.repeat(of_group[leaf], lengths).astype(np.float32))
            total = total - mass * (advantage * gate * torch.exp(log_p - sampled)).sum()
            labels += mass * len(log_p)
    loss = total / labels
    named = model.trainable()
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return loss.item(), {n: g for n, g in zip(named, gradients, strict=True) if g is not None}, int(labels)


def by_definition(tree: SampleTree, rewards: dict[int, float], leaf: int, kind: str) -> np.ndarray:
    """The advantage of each node on the way to a leaf: the papers' formulas, a leaf of mass m counted m times."""

    def value(node: int | None) -> tuple[float, float]:
        """Mean and number of the answers under a node; None is the prompt."""
        under = [(r, tree.leaves[end].mass) for end, r in rewards.items() if node is None or node in tree.path(end)]
        count = sum(mass for _, mass in under)
        return sum(r * mass for r, mass in under) / count, count

    path, (mean, count) = tree.path(leaf), value(None)
    if kind == "tree":
        before = [None, *path[:-1]]
        return np.array(
            [
                ((value(node)[0] - mean) + (value(node)[0] - value(parent)[0])) / np.sqrt(value(node)[1])
                for node, parent in zip(path, before, strict=True)
            ]
        )
    centred = rewards[leaf] - mean
    if kind == "grpo":
        centred /= np.sqrt(sum(tree.leaves[end].mass * (r - mean) ** 2 for end, r in rewards.items()) / count)
    return np.full(len(path), centred)


def test_the_figures_of_a_step_are_those_of_its_trees() -> None:
    figures, _, groups = step_of(random_model(), Objective(advantage="tree"))
    rl, trees = figures["rl"], [tree for tree, _ in groups]
    leaves = [(tree, leaf, prompt) for tree, prompt in groups for leaf in tree.leaves]
    outcomes = [
        (tree.leaves[leaf].mass, reward(" ".join(map(str, tree.answer(leaf).tolist())), prompt.text))
        for tree, leaf, prompt in leaves
    ]
    scored = [(mass, outcome) for mass, outcome in outcomes if not isinstance(outcome, Failure)]
    masses, rewards = map(np.asarray, zip(*scored, strict=True))
    mean = (masses * rewards).sum() / masses.sum()
    sampled = sum(tree.tokens for tree in trees)
    lengths = [len(tree.answer(leaf)) for tree, leaf, _ in leaves]
    merged = sum(tree.leaves[leaf].mass - 1 for tree, leaf, _ in leaves)
    expected = {
        "rewardMean": mean,
        "rewardDeviation": np.sqrt((masses * (rewards - mean) ** 2).sum() / masses.sum()),
        "failedRewards": len(leaves) - len(scored),
        "groups": 3,
        "mixedGroups": 2,
        "trainedGroups": 2,
        "mixedPerThousandTokens": 2000 / sampled,
        "leaves": len(leaves),
        "sampledTokens": sampled,
        "leavesPerThousandTokens": 1000 * len(leaves) / sampled,
        "answerTokens": np.mean(lengths),
        "truncatedShare": np.mean([not tree.leaves[leaf].ended for tree, leaf, _ in leaves]),
        "forwardedPerLeaf": rl["forwardedTokens"] / len(leaves),
        "forwardedPerLeafAlone": np.mean(lengths) + np.mean([len(prompt.ids) for *_, prompt in leaves]) - 1,
        "entropy": np.concatenate([node.entropy for tree in trees for node in tree.nodes]).mean(),
        "clipFraction": 0,
        "klToStart": None,
    }
    assert {name: rl[name] for name in expected} == {
        name: value if value is None else pytest.approx(value, rel=1e-5) for name, value in expected.items()
    }
    assert 0 < rl["prunedShare"] < 1 and merged > 0
    assert 0 < rl["logProbGap"] < 1e-5 and rl["logProbGap"] <= rl["largestLogProbGap"] < 1e-4


@pytest.mark.parametrize(
    "objective",
    [
        {"advantage": "tree"},
        {"advantage": "grpo"},
        {"advantage": "drGrpo"},
        {"advantage": "reinforcePlusPlus"},
        {"advantage": "drGrpo", "skip_uniform_groups": False},
        {"advantage": "tree", "gate": "entropy"},
        {"advantage": "tree", "gate": "nlirg"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_step_is_what_its_definition_says(objective: dict[str, Any]) -> None:
    settings = Objective(**objective)
    figures, gradient, groups = step_of(random_model(), settings)
    assert any(leaf.mass > 1 for tree, _ in groups for leaf in tree.leaves.values()), "some were pruned"
    assert 0 < figures["rl"]["failedRewards"] < figures["rl"]["leaves"]
    assert figures["rl"]["mixedGroups"] == 2
    assert figures["rl"]["trainedGroups"] == (2 if settings.skip_uniform_groups else 3)
    loss, wanted, labels = expected(random_model(), groups, settings)
    assert figures["supervisedTokens"] == labels
    assert figures["loss"] == pytest.approx(loss, abs=1e-6)  # what branches add up to is near 0
    assert_same((0.0, gradient), (0.0, wanted), 1e-5)
