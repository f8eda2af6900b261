"""The shapes of the JSON that a run leaves in its folder, as the report reads them.

Every field that an unfinished run may lack has a default; `record.py` reads the files, `outcome.py` judges them.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _FileModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class StepMetrics(_FileModel):
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
