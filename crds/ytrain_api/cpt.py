"""`spec.cpt`: continued pre-training on raw text."""

from pydantic import Field

from ytrain_api.base import Block, ModelSource
from ytrain_api.loss import TokenLoss


class Selection(Block):
    """Trains only tokens that a reference model finds much easier than the trained one (Rho-1, arXiv 2404.07965)."""

    reference_model: ModelSource = Field(
        description="Where the reference model lies, written like model.source; it must share the tokenizer."
    )
    keep_fraction: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="Share of a step's tokens that is trained, above 0 to 1: those with the largest loss above "
        "the reference's. The others weigh 0; loss.rescale divides by those that are left.",
    )


class Cpt(Block):
    """Continued pre-training: learns every token of the texts; documents never see each other."""

    loss: TokenLoss = Field(default_factory=TokenLoss, description="Which tokens count how much.")
    selection: Selection | None = Field(
        default=None, description="Train only tokens worth learning, by a reference model. Absent: all tokens."
    )
