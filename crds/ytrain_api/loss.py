"""How much each token's gradient counts, by kinds of weights with their own parameters; and what holds a model back."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ytrain_api.base import Block, Rule

LossKind = Literal["nlirg", "crossEntropy", "dft", "eaft", "threshold"]
_KIND = (
    "nlirg damps what is known already and what is probably a wrong label; crossEntropy weighs all tokens alike; "
    "dft weighs by the token's probability; eaft by the entropy of the prediction; threshold drops hard tokens."
)


class NlirgLoss(Block):
    """Parameters of nlirg, over a token's loss l in nats (s is the logistic function).

    Up to `split` the weight is s(riseSlope * (l - riseMidpoint)), from there s(fallMidpoint - l), from `cutoff` on 0.
    """

    rise_slope: float = Field(default=1.7, gt=0, description="Steepness with which the weight rises, per nat.")
    rise_midpoint: float = Field(default=1.2, description="Loss in nats where the rising weight is one half.")
    split: float = Field(default=3.0, ge=0, description="Loss in nats where rising ends and falling begins.")
    fall_midpoint: float = Field(default=6.2, description="Loss in nats where the falling weight is one half.")
    cutoff: float = Field(default=15.0, ge=0, description="Loss in nats from which a token counts nothing.")

    rules = (
        Rule("self.split < self.cutoff", "split must be below cutoff: the weight falls between the two", ".split"),
    )


class EaftLoss(Block):
    """Parameters of eaft: weight = (entropy of the 20 likeliest tokens / ln 20) ** exponent."""

    exponent: float = Field(default=1.0, gt=0, description="Exponent of the normalised entropy; larger is pickier.")


class ThresholdLoss(Block):
    """Parameters of threshold: tokens with a loss of `limit` or more count nothing."""

    limit: float = Field(gt=0, description="Loss in nats from which a token is left out.")


class TokenLoss(Block):
    """Weight of each token's gradient, computed from its loss and entropy at that moment."""

    kind: LossKind = Field(default="crossEntropy", description=_KIND)
    rescale: bool = Field(
        default=False,
        description="Divide by the mean weight of the step, so that learning rates compare between kinds.",
    )
    nlirg: NlirgLoss | None = Field(default=None, description="Parameters of kind nlirg. Absent: its defaults.")
    eaft: EaftLoss | None = Field(default=None, description="Parameters of kind eaft. Absent: its defaults.")
    threshold: ThresholdLoss | None = Field(default=None, description="Parameters of kind threshold, which needs them.")

    rules = (
        *(
            Rule(
                f"!has(self.{kind}) || self.kind == '{kind}'",
                f"{kind} holds the parameters of kind {kind} and would be ignored; set kind: {kind}, or remove "
                f"the block",
                f".{kind}",
            )
            for kind in ("nlirg", "eaft", "threshold")
        ),
        Rule(
            "self.kind != 'threshold' || has(self.threshold)",
            "kind threshold needs a limit; add threshold: {limit: 5.0} (a loss in nats)",
            ".threshold",
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_parameters(cls, data: Any) -> Any:
        """Give the chosen kind its default parameters: the dumped job shows them, code reads them in one place."""
        kind = data.get("kind", cls.model_fields["kind"].default) if isinstance(data, dict) else None
        if kind in ("nlirg", "eaft") and data.get(kind) is None:
            return {**data, kind: {}}
        return data


class SftLoss(TokenLoss):
    """Weight of each answer token's gradient, computed from its loss and entropy at that moment."""

    kind: LossKind = Field(default="nlirg", description=_KIND)


class BaseAnchor(Block):
    """Keeps the model near its start: adds weight * KL(current || start) on the tokens that are learned."""

    weight: float = Field(gt=0, description="Weight of the KL term, in loss per nat; 0.03 is a mild anchor.")
