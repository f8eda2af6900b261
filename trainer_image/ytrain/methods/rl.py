"""Reinforcement learning: answers are sampled and scored, and the good ones made likelier."""

import sys
from importlib.util import find_spec

from ytrain.methods.method import Method
from ytrain.rl.vllm.worker import LORA_RANKS
from ytrain_api.job import Spec
from ytrain_api.loss import TokenLoss
from ytrain_api.rl import Rl


def method(rl: Rl) -> Method:
    """What `spec.rl` asks for: the prompts are chats, up to their last answer where they have one."""
    return Method(
        kind="prompt",
        overlong="skip",
        loss=TokenLoss(kind="crossEntropy"),
        supervise="lastTurn",
        samples_per_step=rl.rollout.prompts_per_step,
        anchor_weight=rl.objective.base_anchor.weight if rl.objective.base_anchor else 0.0,
    )


def answers_per_step(rl: Rl, prompts: int) -> int:
    """Answers that a step samples at most, of a job with so many prompts: before pruning, every token forked that may
    be."""
    forked = rl.tree.rounds * rl.tree.forks * rl.tree.branches if rl.tree else 0
    return min(rl.rollout.prompts_per_step, prompts) * (rl.rollout.chains + forked)


def findings(spec: Spec) -> list[str]:
    """What a job of this method may not ask for."""
    assert spec.rl is not None
    found = []
    if spec.model.lora is not None and spec.model.lora.dropout > 0:
        found.append(
            "spec.model.lora.dropout: answers are sampled without dropout, so training with it would be off-policy; "
            "leave it at 0"
        )
    if spec.rl.rollout.chains == 1 and spec.rl.tree is None:
        found.append(
            "spec.rl.rollout.chains: 1: an answer is learned by comparison with others to the same prompt; take 2 or "
            "more, or add rl.tree"
        )
    if not spec.data.packing:
        found.append(
            "spec.data.packing: false: rl lays the answers to a prompt out in one row, kept apart exactly; leave it out"
        )
    if spec.rl.rollout.engine == "vllm":
        found += _vllm_findings(spec)
    return found


def _vllm_findings(spec: Spec) -> list[str]:
    found = []
    if find_spec("vllm") is None:
        found.append(
            f"spec.rl.rollout.engine: vllm: vLLM is not installed in {sys.prefix}; install it there or take an image "
            "that has it (docs/reinforcement-learning.md), or leave the field out: transformers is always there"
        )
    if spec.model.lora is not None and spec.model.lora.rank > LORA_RANKS[-1]:
        found.append(
            f"spec.model.lora.rank: {spec.model.lora.rank}: vLLM takes adapters of a rank up to {LORA_RANKS[-1]}; "
            "lower it, or choose rl.rollout.engine transformers"
        )
    return found
