"""What a rank and the process of its vLLM engine tell one another."""

from collections.abc import Sequence
from dataclasses import dataclass

from ytrain.rl.tree import Figures


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What the engine keeps for its life."""

    model: str
    """Folder of the model that it loads; with LoRA the base model."""
    dtype: str
    """Number type of the computation: float32 or bfloat16."""
    vocabulary: int
    max_tokens: int
    """Of a prompt and its answer together."""
    temperature: float
    top_p: float
    stop_ids: tuple[int, ...]
    lora_rank: int | None
    """Or None, where all weights are trained."""
    gpu_memory_utilization: float


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The policy of a step."""

    number: int
    """Counts what was handed over, from 1."""
    folder: str
    """With an adapter, or with the whole model."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Tokens to be continued."""

    ids: list[int]
    seed: int
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """Prefixes to be continued, each for itself."""

    weights: Weights | None
    """Of a new step; None: those that the engine has."""
    prefixes: Sequence[Prefix]


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What follows a prefix."""

    tokens: list[int]
    log_p: Figures
    """Of each token, at the temperature and before top_p cut the distribution."""
    entropy: Figures
    """Of each token's distribution in nats, estimated."""
    cached: int
    """Tokens of the prefix that were not forwarded, as the engine had them from before."""


@dataclass(frozen=True)
class Ready:
    """The engine can be asked."""


@dataclass(frozen=True)
class Failed:
    """The engine cannot go on."""

    reason: str
