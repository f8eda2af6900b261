"""The shapes of the JSON that a run leaves in its folder, as the report reads them.

Every field that an unfinished run may lack has a default; `record.py` reads the files, `outcome.py` judges them.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

_SHAPE = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class _FileModel(BaseModel):
    model_config = _SHAPE | ConfigDict(frozen=True)


# A long run has hundreds of thousands of these, and a small launcher pod may have to hold them: slots take half.
_many = dataclass(config=_SHAPE, frozen=True, slots=True, kw_only=True)


@_many
class RewardFigures:
    """What a step of reinforcement learning adds to its line of metrics.jsonl; None is what could not be told.

    Entropy, gap and KL in nats per token, shares from 0 to 1; figures `per_leaf` are tokens per answer.
    """

    reward_mean: float | None = None
    reward_deviation: float | None = None
    groups: int | None = None
    mixed_groups: int | None = None
    leaves: int | None = None
    failed_rewards: int | None = None
    answer_tokens: float | None = None
    truncated_share: float | None = None
    forwarded_per_leaf: float | None = None
    forwarded_per_leaf_alone: float | None = None
    entropy: float | None = None
    clip_fraction: float | None = None
    log_prob_gap: float | None = None
    kl_to_start: float | None = None
    sample_seconds: float | None = None
    reward_seconds: float | None = None


@_many
class StepMetrics:
    """One line of metrics.jsonl: one optimizer step. Losses in nats per token, `seconds` the step's wall time."""

    step: int
    epoch: float = 0.0
    loss: float | None = None
    weighted_loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    supervised_tokens: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    data_wait_seconds: float | None = None
    weight_histogram: tuple[int, ...] | None = None
    rl: RewardFigures | None = None


step_metrics = TypeAdapter(StepMetrics).validate_python
"""A line of metrics.jsonl; pydantic.ValidationError where it is none."""


class SampledNode(_FileModel):
    """A segment of a sample tree: its text, and the entropy in nats of what its first token was drawn from."""

    parent: int = Field(ge=-1)
    """Number of the node before; -1 is the prompt. Parents come before their children."""
    tokens: int
    entropy: float
    text: str


class SampledLeaf(_FileModel):
    """The end of an answer; `mass` is how many answers it stands for, `failure` why it has no reward."""

    node: int = Field(ge=0)
    mass: float = Field(default=1.0, gt=0)
    ended: bool = True
    reward: float | None = None
    failure: str | None = None


class SampledAnswers(_FileModel):
    """samples/step-000001.json: the tree of answers to one prompt of a step."""

    step: int
    place: str = ""
    prompt: str
    nodes: tuple[SampledNode, ...]
    leaves: tuple[SampledLeaf, ...]

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        if any(node.parent >= number for number, node in enumerate(self.nodes)):
            raise ValueError("a node whose parent does not come before it")
        ends = {leaf.node for leaf in self.leaves}
        if len(ends) < len(self.leaves) or ends != set(range(len(self.nodes))) - {node.parent for node in self.nodes}:
            raise ValueError("leaves have to be the nodes without children")
        return self


class TextLoss(_FileModel):
    """Mean loss in nats per token over `tokens` tokens of one held-out text."""

    name: str = "validation"
    loss: float
    tokens: int


class Answer(_FileModel):
    """One generated answer of a task."""

    prompt: str
    expected: str
    answer: str
    correct: bool


class TaskScore(_FileModel):
    """How many of a task's samples were answered correctly."""

    name: str
    metric: str = "exactMatch"
    accuracy: float
    correct: int
    samples: int
    examples: tuple[Answer, ...] = ()


class Divergence(_FileModel):
    """KL(start || now) in nats per token on training prompts."""

    value: float
    tokens: int


class EvaluationPoint(_FileModel):
    """All that was measured after `step` optimizer steps."""

    step: int
    validation: TextLoss | None = None
    retention: tuple[TextLoss, ...] = ()
    tasks: tuple[TaskScore, ...] = ()
    kl_to_start: Divergence | None = None


class Evaluation(_FileModel):
    """evaluation.json."""

    before: EvaluationPoint | None = None
    after: EvaluationPoint | None = None
    history: tuple[EvaluationPoint, ...] = ()


class SkippedRecord(_FileModel):
    """One line of skipped.jsonl."""

    source: str
    line: int | None = None
    reason: str


class DataCounts(_FileModel):
    """Records read and what became of them; tokens are those of one epoch."""

    read: int = 0
    used: int = 0
    skipped: int = 0
    truncated: int = 0
    split: int = 0
    supervised_tokens: int = 0
    tokens: int = 0
    reasons: dict[str, int] = {}


class Parameters(_FileModel):
    """Parameter counts; `moved_fraction` is the share of trainable weights that ended up different."""

    total: int
    trainable: int
    moved_fraction: float | None = None


class Memory(_FileModel):
    """Bytes of one rank: what `ytrain check` estimates and what was measured at the peak."""

    estimated_bytes: int | None = None
    peak_bytes: int | None = None


class Packing(_FileModel):
    """How full the rows were that samples were packed into."""

    row_tokens: int
    filled: float
    forwarded: float = 1.0


class Failure(_FileModel):
    """Why a run ended without an output."""

    message: str
    kind: str | None = None
    exit_code: int | None = None


class Output(_FileModel):
    """Where the trained weights are, and the measurements that verified them after loading them again."""

    path: str
    verified: dict[str, float | bool | str | None] = {}


class Result(_FileModel):
    """result.json."""

    job: str = ""
    uid: str | None = None
    state: Literal["Succeeded", "Failed", "Preempted"]
    step: int | None = None
    epoch: float | None = None
    failure: Failure | None = None
    digests: dict[str, str | None] = {}
    versions: dict[str, str | None] = {}
    device: str | None = None
    precision: str | None = None
    parameters: Parameters | None = None
    data: DataCounts | None = None
    packing: Packing | None = None
    memory: Memory | None = None
    timing: dict[str, float] = {}
    output: Output | None = None
    corpus: dict[str, Any] | None = None
    """What a corpus job counted."""
