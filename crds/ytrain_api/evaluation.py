"""`spec.evaluation`, `spec.checkpoint` and `spec.output`: what is measured, kept and delivered."""

from typing import Annotated, Literal

from pydantic import Field

from ytrain_api.base import Block, DataUri, ListType, Name, Target
from ytrain_api.units import Duration

Metric = Literal["exactMatch"]


class Task(Block):
    """Questions answered by generating, before and after training."""

    name: Name = Field(description="Name in reports: lower-case letters, digits and hyphens; unique in the list.")
    source: DataUri = Field(
        description="Where records with a question and its answer lie, written like data.train[].source."
    )
    metric: Metric = Field(
        default="exactMatch", description="How an answer is judged: exactMatch compares trimmed texts."
    )
    samples: int = Field(
        default=64, ge=1, le=1_000_000, description="Records that are asked, the first ones of a seeded shuffle."
    )
    max_new_tokens: int = Field(default=128, ge=1, le=100_000, description="Longest answer, in tokens.")


class Retention(Block):
    """Texts or chats that must not get worse: their loss is reported before and after training."""

    name: Name = Field(description="Name in reports: lower-case letters, digits and hyphens; unique in the list.")
    source: DataUri = Field(description="Where the texts or chats lie, written like data.train[].source.")


class Evaluation(Block):
    """What is measured besides the training loss: gain on tasks, and what was forgotten."""

    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Optimizer steps between evaluations. Absent: only before and after.",
    )
    tasks: Annotated[list[Task], ListType("map", ("name",))] = Field(
        default_factory=list, max_length=64, description="Questions to be answered better after training."
    )
    retention: Annotated[list[Retention], ListType("map", ("name",))] = Field(
        default_factory=list, max_length=64, description="Texts or chats that must not get worse."
    )


class Checkpoint(Block):
    """When the state of training is saved, so that it can go on after a stop or a fault."""

    every: Duration = Field(default=Duration("15m"), description="Time between checkpoints, such as 90s, 15m or 1h30m.")
    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Optimizer steps between checkpoints, besides every: whichever comes first. Absent: by time only.",
    )
    keep: int = Field(default=2, ge=1, le=1000, description="Newest complete checkpoints that are kept.")


class Output(Block):
    """Where the trained model goes."""

    target: Target | None = Field(
        default=None,
        description="Folder for the result, with nothing in it: pvc://claim/path, s3://bucket/prefix or file:///path. "
        "A bucket gets ytrain.json last: without it the prefix holds no output yet. "
        "Absent: it stays in the run's work folder.",
    )
    merge: bool = Field(default=False, description="Also write the model with its LoRA adapter merged in.")
