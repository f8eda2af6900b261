"""The part of a pod template that the contract looks into: environment variables, where tokens end up by mistake.

Everything else of a PodTemplateSpec passes through; the API server checks it when the pod is made.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from ytrain_api.base import NO_SECRET, Block, ListType

# The bounds on value, env and containers keep the cost of the token rule within what the API server allows.
EnvValue = Annotated[str, StringConstraints(max_length=1024), NO_SECRET]


class PassThrough(Block):
    """A block of Kubernetes' own that may hold any of its fields."""

    model_config = ConfigDict(extra="allow")


class EnvVar(PassThrough):
    """An environment variable, as in a Pod."""

    name: str = Field(max_length=256, description="Name of the variable.")
    value: EnvValue | None = Field(
        default=None, description="Its value; a secret one comes from valueFrom.secretKeyRef instead."
    )


class Container(PassThrough):
    """A container, as in a Pod; the trainer's own is named trainer."""

    name: str = Field(max_length=63, description="Name of the container; trainer is the one that the job makes.")
    env: Annotated[list[EnvVar], ListType("map", ("name",))] | None = Field(
        default=None, max_length=64, description="Environment variables, added to those of the job."
    )


class PodSpec(PassThrough):
    """A PodSpec, as far as it is given."""

    containers: Annotated[list[Container], ListType("map", ("name",))] | None = Field(
        default=None, max_length=8, description="Containers, merged by name."
    )


class PodTemplate(PassThrough):
    """A PodTemplateSpec, as far as it is given."""

    spec: PodSpec | None = Field(default=None, description="The pod's spec, as far as it is given.")
