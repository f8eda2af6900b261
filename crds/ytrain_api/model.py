"""`spec.model`: what is trained, and how much of it."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ytrain_api.base import NO_SECRET, Block, ListType, ModelSource, ShortText, Wording

Precision = Literal["auto", "bfloat16", "float32"]
AdapterSource = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^((hf|pvc|s3|file)://.+)?$"),
    Wording("hf://owner/name, pvc://claim/path, s3://bucket/prefix, file:///path, or empty"),
    NO_SECRET,
]


class Lora(Block):
    """Trains small low-rank matrices beside the frozen weights instead of the full model."""

    rank: int = Field(
        default=32,
        ge=1,
        le=1024,
        description="Inner width of the low-rank matrices; more learns more and needs more memory.",
    )
    alpha: float = Field(
        default=64, gt=0, description="Scale of the adapter: its output is multiplied by alpha / rank."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the adapter's inputs dropped in training, 0 to below 1."
    )
    targets: Annotated[list[ShortText], ListType("set")] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        description="Names of the layers that get an adapter, such as [q_proj, v_proj]; "
        "[all-linear] is every linear layer but the output head.",
    )
    start_from: AdapterSource = Field(
        default="",
        description="Adapter to continue from (hf://, pvc://, s3://, file://); empty starts a new one. "
        "Its rank, alpha and targets must equal the ones here.",
    )


class Model(Block):
    """The model that training starts from."""

    source: ModelSource = Field(
        description="Where the model lies: hf://owner/name@revision, pvc://claim/path, s3://bucket/prefix or "
        "file:///path (file://./path is relative to the job file), in the layout that from_pretrained reads."
    )
    precision: Precision = Field(
        default="auto",
        description="Number type of the computation. auto is bfloat16 where the device computes it fast, else float32. "
        "The trained weights are kept in float32 either way.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute activations again in the backward pass instead of keeping them: "
        "about a third slower, much less memory.",
    )
    lora: Lora | None = Field(default=None, description="Train a LoRA adapter. Absent: the full model is trained.")
