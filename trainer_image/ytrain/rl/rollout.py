"""The interface of what samples answers, and what it is asked and gives; the policy's weights are its own business."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ytrain.rl.tree import Ids, SampleTree


@dataclass(frozen=True)
class Request:
    """A prompt to be answered."""

    prompt_ids: Ids
    key: tuple[int, ...]
    """Names the stream of random numbers: the same key gives the same answers, whatever else is sampled with it."""


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """The answers to a batch of prompts, and what they cost."""

    trees: list[SampleTree]
    """Of each request, in order."""
    forwarded: int
    """Tokens that went through the model, padding aside."""
    branches: int
    """Branches that were begun at forks."""
    pruned: int
    """Those of them that were merged into another one."""


class RolloutEngine(Protocol):
    """Samples from the policy as it is now."""

    def sample(self, requests: Sequence[Request]) -> Rolled:
        """A tree for every request; all ranks call it, also those that ask for nothing."""
        ...
