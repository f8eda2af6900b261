"""`spec.corpus`: scores a corpus instead of training on it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ytrain_api.base import Block, ListType, Rule

Analysis = Literal["divergence", "clusters", "duplicates"]


class Divergence(Block):
    """Thresholds on z-scores of a token's loss and of its prediction's entropy, over the whole corpus."""

    threshold: float = Field(
        default=0.6,
        gt=0,
        description="z-score beyond which loss or entropy is high (or, negative, low): high loss at low entropy "
        "is a likely "
        "wrong label, both high is hard, low loss at high entropy is lucky.",
    )
    span_threshold: float = Field(
        default=1.96, gt=0, description="z(loss) - z(entropy) that a span of tokens must reach to be reported."
    )
    smoothing_tokens: int = Field(
        default=3, ge=1, le=101, description="Tokens of the centred mean taken before comparing."
    )


class Clusters(Block):
    """Groups records of similar meaning (mean hidden state, PCA, HDBSCAN)."""

    min_size: int = Field(default=5, ge=2, le=1_000_000, description="Fewest records that make a cluster.")
    dimensions: int = Field(default=30, ge=2, le=4096, description="Dimensions kept by PCA before clustering.")


class Duplicates(Block):
    """Finds records that repeat each other nearly word by word."""

    similarity: float = Field(
        default=0.9, gt=0, le=1, description="Share of common word groups from which two records are duplicates."
    )


class Corpus(Block):
    """Scores each record: likely wrong labels, hard, lucky and redundant samples. The model is not changed."""

    analyses: Annotated[list[Analysis], ListType("set")] = Field(
        default=["divergence", "clusters", "duplicates"],
        min_length=1,
        max_length=3,
        description="What is computed: divergence (wrong labels), clusters (topics), duplicates.",
    )
    divergence: Divergence | None = Field(default=None, description="Thresholds of divergence. Absent: its defaults.")
    clusters: Clusters | None = Field(default=None, description="Settings of clusters. Absent: its defaults.")
    duplicates: Duplicates | None = Field(default=None, description="Settings of duplicates. Absent: its defaults.")
    examples: int = Field(
        default=100,
        ge=0,
        le=100_000,
        description="Records shown token by token in the HTML page, most suspicious first.",
    )

    rules = tuple(
        Rule(
            f"!has(self.{name}) || '{name}' in self.analyses",
            f"{name} would be ignored: it is not among analyses; add it there, or remove the block",
            f".{name}",
        )
        for name in ("divergence", "clusters", "duplicates")
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_settings(cls, data: Any) -> Any:
        """Give every chosen analysis its default settings, so that the dumped job shows them."""
        if not isinstance(data, dict):
            return data
        chosen = data.get("analyses") or cls.model_fields["analyses"].default
        known = [
            name for name in ("divergence", "clusters", "duplicates") if isinstance(chosen, list) and name in chosen
        ]
        return {**data, **{name: {} for name in known if data.get(name) is None}}
