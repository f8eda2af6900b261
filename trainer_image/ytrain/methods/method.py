"""What a method makes of the texts of a job: which tokens are learned, and with what weight.

Everything else of a run is the same for every method (training.py).
"""

from dataclasses import dataclass

from ytrain.data.chat import Supervise
from ytrain.data.keys import RecordKind
from ytrain.data.overlong import Overlong
from ytrain_api.loss import TokenLoss


@dataclass(frozen=True)
class OtherModel:
    """A model that is asked and never trained."""

    field: str
    """Where the job names it."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """The words of `spec.sft`, `spec.cpt` or `spec.rl`, in the terms that they share."""

    kind: RecordKind
    """What may be learned where a source's format is auto."""
    overlong: Overlong
    """What becomes of a long record where the job does not say."""
    loss: TokenLoss
    whole_rows: bool = False
    """Whether a step is made of full rows, for which samples are looked for far ahead in the epoch's order."""
    supervise: Supervise = "allAssistantTurns"
    samples_per_step: int | None = None
    """With it, a step is made of so many samples, and the batch settings say nothing."""
    window_tokens: int | None = None
    anchor_weight: float = 0.0
    teacher: OtherModel | None = None
    teacher_share: float = 0.0
    reference: OtherModel | None = None
    """By whose losses the tokens worth learning are chosen."""
    keep_fraction: float = 1.0

    @property
    def others(self) -> list[OtherModel]:
        """The models that the method asks."""
        return [model for model in (self.teacher, self.reference) if model is not None]
