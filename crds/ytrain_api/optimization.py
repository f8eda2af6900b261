"""`spec.optimization` and `spec.deepspeed`: how the weights move, and how their state is spread over devices."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ytrain_api.base import Block, FreeForm, Rule

Schedule = Literal["cosine", "linear", "constant"]
Offload = Literal["none", "optimizer", "parameters"]
DEFAULT_BATCH_TOKENS = 65536


class Optimization(Block):
    """AdamW and its schedule. The batch is global: it stays the same whatever the number of workers."""

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak learning rate. Absent: 5e-6 for the full model; for LoRA it is derived from the "
        "model's width.",
    )
    epochs: int = Field(default=3, ge=1, le=100_000, description="Times that the training data are seen.")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Optimizer steps after which training ends at the latest. Absent: by epochs.",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Tokens of one optimizer step over all workers. Default: 65536 unless batchSequences is given.",
    )
    batch_sequences: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Samples of one optimizer step over all workers. Absent: batchTokens counts.",
    )
    micro_batch_tokens: int | None = Field(
        default=None,
        ge=8,
        le=10_000_000,
        description="Tokens of one forward pass on one device; sets memory and speed, not the result. Absent: "
        "data.maxTokens; to score a corpus, at least 4096.",
    )
    schedule: Schedule = Field(
        default="cosine",
        description="Course of the learning rate after warm-up: cosine or linear to zero, or constant.",
    )
    warmup_fraction: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="Share of all steps over which the learning rate rises from zero, 0 to below 1.",
    )
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, description="AdamW's decoupled weight decay, per unit of learning rate."
    )
    gradient_clip: float = Field(
        default=1.0, ge=0, description="Largest norm of the gradient of a step; 0 does not clip."
    )
    seed: int = Field(
        default=42, ge=0, le=2**31 - 1, description="Seed of sample order, LoRA initialisation and dropout."
    )

    rules = (
        Rule(
            "!(has(self.batchTokens) && has(self.batchSequences))",
            "give batchTokens or batchSequences, not both: each alone sets the size of a step",
            ".batchSequences",
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_batch(cls, data: Any) -> Any:
        """The default of batchTokens hangs on another field, so the CRD cannot hold it; a dumped job shows it."""
        batch = ("batchTokens", "batch_tokens", "batchSequences", "batch_sequences")
        if isinstance(data, dict) and all(data.get(name) is None for name in batch):
            return {**data, "batchTokens": DEFAULT_BATCH_TOKENS}
        return data


class Deepspeed(Block):
    """Settings of the DeepSpeed engine."""

    zero_stage: int = Field(
        default=2,
        ge=0,
        le=3,
        description="What is spread over the ranks: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 the "
        "weights too.",
    )
    offload: Offload = Field(
        default="none", description="What is kept in host memory: none, the optimizer's state, or parameters as well."
    )
    config: FreeForm = Field(
        default_factory=dict,
        description="Passed through to DeepSpeed; a key that the trainer manages is refused by name.",
    )

    rules = (
        Rule(
            "self.offload != 'parameters' || self.zeroStage == 3",
            "offload: parameters works with zeroStage 3 only; set zeroStage: 3, or offload: optimizer",
            ".offload",
        ),
        Rule(
            "self.offload != 'optimizer' || self.zeroStage >= 1",
            "offload: optimizer needs zeroStage 1, 2 or 3",
            ".offload",
        ),
    )
