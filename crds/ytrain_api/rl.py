"""`spec.rl`: reinforcement learning without a critic; only a reward function is needed."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ytrain_api.base import NO_SECRET, Block, FreeForm, Rule, Text, Wording
from ytrain_api.loss import BaseAnchor
from ytrain_api.units import Duration

BuiltinRewardKind = Literal["exact", "regex", "numeric", "jsonSchema", "length"]
Advantage = Literal["auto", "tree", "grpo", "drGrpo", "reinforcePlusPlus"]
Gate = Literal["none", "nlirg", "entropy"]
RolloutEngine = Literal["transformers", "vllm"]
MOST_ANSWERS = 4096
"""Leaves of a tree: rounds, forks and branches multiply."""
CallableUri = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^(pvc|file|configmap)://.+\.py:[A-Za-z_][A-Za-z0-9_]*$"),
    Wording("a file and its function, such as configmap://my-reward/reward.py:score"),
    NO_SECRET,
]
HttpUrl = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^https?://[^\s]+$"),
    Wording("an address that starts with http:// or https://"),
    NO_SECRET,
]


class PythonReward(Block):
    """A Python function of the job: score(prompt, answer, record) -> float."""

    source: CallableUri = Field(
        description="File and function, such as configmap://my-reward/reward.py:score, pvc://claim/reward.py:score."
    )
    timeout: Duration = Field(
        default=Duration("10s"),
        description="Longest time of one call; a slower call is a failed sample, counted, never zero.",
    )


class HttpReward(Block):
    """An HTTP endpoint: POST {prompt, answer, record} answers {reward}."""

    url: HttpUrl = Field(description="Address that scores one answer.")
    timeout: Duration = Field(
        default=Duration("30s"),
        description="Longest time of one request; a slower one is a failed sample, counted, never zero.",
    )


class BuiltinReward(Block):
    """A ready-made reward, mostly against the record's own answer."""

    kind: BuiltinRewardKind = Field(
        description="exact: the answer equals the record's; regex: the answer matches pattern; numeric: the last "
        "number is the "
        "record's within tolerance; jsonSchema: the answer is JSON that fits jsonSchema; length: at most "
        "maxTokens long."
    )
    pattern: Text | None = Field(
        default=None, description="Regular expression searched in the answer; needed by kind regex only."
    )
    tolerance: float = Field(default=1e-6, ge=0, description="Largest difference that kind numeric calls equal.")
    json_schema: FreeForm | None = Field(
        default=None, description="JSON Schema of the answer; needed by kind jsonSchema only."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Longest good answer in tokens; needed by kind length only."
    )

    rules = tuple(
        Rule(
            f"(self.kind == '{kind}') == has(self.{name})",
            f"{name} belongs to kind {kind}, which needs it; give both or neither",
            f".{name}",
        )
        for kind, name in (("regex", "pattern"), ("jsonSchema", "jsonSchema"), ("length", "maxTokens"))
    )


class Reward(Block):
    """Where an answer's score comes from: exactly one of python, builtin, http."""

    python: PythonReward | None = Field(default=None, description="A Python function of the job.")
    builtin: BuiltinReward | None = Field(default=None, description="A ready-made reward.")
    http: HttpReward | None = Field(default=None, description="An HTTP endpoint.")

    rules = (
        Rule(
            "[has(self.python), has(self.builtin), has(self.http)].filter(given, given).size() == 1",
            "give exactly one of python, builtin, http",
        ),
    )


class Rollout(Block):
    """How answers are sampled."""

    engine: RolloutEngine = Field(
        default="transformers",
        description="What samples: transformers, the trained model itself; vllm, a vLLM engine beside each rank that "
        "gets the weights before every step, where vLLM is installed.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of a GPU's memory that vLLM takes for weights and cache; the rest is the trainer's. "
        "Absent: 0.4.",
    )
    prompts_per_step: int = Field(
        default=8, ge=1, le=65536, description="Prompts of one optimizer step, over all workers."
    )
    chains: int = Field(
        default=8,
        ge=1,
        le=1024,
        description="Independent answers per prompt; with tree, the root chains that are forked.",
    )
    max_new_tokens: int = Field(default=512, ge=1, le=1_000_000, description="Longest answer, in tokens.")
    temperature: float = Field(
        default=1.0, gt=0, le=10, description="Sampling temperature; 1 is the model's own distribution."
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Share of the probability mass that is sampled from, above 0 to 1."
    )
    updates: int = Field(
        default=1, ge=1, le=64, description="Optimizer steps taken on the same answers before new ones are sampled."
    )

    rules = (
        Rule(
            "!has(self.gpuMemoryUtilization) || self.engine == 'vllm'",
            "gpuMemoryUtilization belongs to engine vllm; leave it out, or set engine: vllm",
            ".gpuMemoryUtilization",
        ),
        Rule(
            "self.engine != 'vllm' || self.temperature == 1.0 || self.topP == 1.0",
            "vLLM tells the log-probabilities that rl learns from only without temperature or without topP; leave "
            "temperature or topP at 1, or choose engine transformers",
            ".topP",
        ),
    )


class Pruning(Block):
    """Merges sibling branches that say the same; the survivor carries its cluster's mass, so values stay unbiased."""

    lookahead_tokens: int = Field(
        default=32, ge=1, le=10_000, description="Tokens after the fork whose mean hidden state represents a branch."
    )
    distance: float = Field(
        default=0.1,
        gt=0,
        le=2,
        description="Cosine distance below which two branches fall into one cluster, above 0 to 2.",
    )


class Tree(Block):
    """Forks answers at uncertain tokens (TreeRL, arXiv 2506.11902); shared prefixes are computed once."""

    rounds: int = Field(default=1, ge=1, le=16, description="Times that forks are added to the tree.")
    forks: int = Field(
        default=2, ge=1, le=256, description="Tokens of highest entropy that are forked in a round, per prompt."
    )
    branches: int = Field(default=2, ge=1, le=64, description="New continuations of each forked token.")
    pruning: Pruning | None = Field(default=None, description="Merge branches that say the same. Absent: all are kept.")


class Objective(Block):
    """How rewards become gradients."""

    advantage: Advantage = Field(
        default="auto",
        description="tree: value of a segment against root and parent; grpo: reward against the group's mean over its "
        "deviation; drGrpo: against the mean alone; reinforcePlusPlus: against the mean, over the deviation of the "
        "global batch; auto: tree if there is a tree, else grpo.",
    )
    clip_low: float = Field(
        default=0.2, gt=0, lt=1, description="The probability ratio is clipped below at 1 - clipLow."
    )
    clip_high: float = Field(
        default=0.28, gt=0, le=10, description="The probability ratio is clipped above at 1 + clipHigh."
    )
    gate: Gate = Field(
        default="none",
        description="Extra token weight: none, nlirg (by the token's loss) or entropy (by its uncertainty).",
    )
    base_anchor: BaseAnchor | None = Field(
        default=None,
        description="KL to the starting model, exact over the vocabulary (GRPO's beta has an estimate of it). With "
        "LoRA it costs a forward pass and no second model. Absent: no such term.",
    )
    skip_uniform_groups: bool = Field(
        default=True, description="Leave out prompts whose answers all got the same reward: they teach nothing."
    )


class Rl(Block):
    """Reinforcement learning: samples answers, scores them, and makes good ones likelier."""

    reward: Reward = Field(description="Where an answer's score comes from.")
    rollout: Rollout = Field(default_factory=Rollout, description="How answers are sampled.")
    tree: Tree | None = Field(default=None, description="Sample trees instead of chains. Absent: independent chains.")
    objective: Objective = Field(default_factory=Objective, description="How rewards become gradients.")

    rules = (
        Rule(
            "self.objective.advantage != 'tree' || has(self.tree)",
            "advantage tree needs sample trees; add rl.tree: {}, or choose auto, grpo, drGrpo or reinforcePlusPlus",
            ".objective.advantage",
        ),
        Rule(
            "self.rollout.engine != 'vllm' || !has(self.tree) || !has(self.tree.pruning)",
            "pruning compares hidden states, which vLLM does not give; leave pruning out, or choose "
            "rollout.engine transformers",
            ".tree.pruning",
        ),
        Rule(
            "!has(self.tree) || "
            f"self.rollout.chains + self.tree.rounds * self.tree.forks * self.tree.branches <= {MOST_ANSWERS}",
            f"a prompt gets rollout.chains + rounds * forks * branches answers, which may be {MOST_ANSWERS} at most; "
            "lower one of them",
            ".tree",
        ),
    )
