"""`spec.sft`: instruction tuning that limits wrong labels and forgetting."""

from typing import Literal

from pydantic import Field

from ytrain_api.base import Block, ModelSource
from ytrain_api.loss import BaseAnchor, SftLoss

Supervise = Literal["allAssistantTurns", "lastTurn"]


class Window(Block):
    """A step after every few answer tokens of a sample: each token weight is measured with near-current parameters."""

    tokens: int = Field(ge=1, le=1_000_000, description="Answer tokens of a sample between two optimizer steps.")


class Teacher(Block):
    """Distillation: the loss becomes weight * CE(teacher) + (1 - weight) * CE(label)."""

    source: ModelSource = Field(
        description="Where the teacher lies, written like model.source; it must share the tokenizer."
    )
    weight: float = Field(
        default=0.5, gt=0, le=1, description="Share of the teacher's distribution in the loss, above 0 to 1."
    )


class Sft(Block):
    """Instruction tuning: learns the answers of conversations."""

    loss: SftLoss = Field(default_factory=SftLoss, description="Which tokens count how much.")
    window: Window | None = Field(
        default=None, description="Step after every few answer tokens of a sample. Absent: a step per global batch."
    )
    supervise: Supervise = Field(
        default="allAssistantTurns",
        description="Turns whose tokens are learned: every turn of the assistant, or only the last one.",
    )
    base_anchor: BaseAnchor | None = Field(default=None, description="KL to the starting model. Absent: no such term.")
    teacher: Teacher | None = Field(default=None, description="Distil from a larger model. Absent: labels only.")
