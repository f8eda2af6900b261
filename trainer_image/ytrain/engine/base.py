"""The interface of an engine: what the training loop may ask of it, whatever spreads and updates the weights."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW as the job asks for it; the learning rate comes with every step."""

    weight_decay: float
    gradient_clip: float
    """Largest gradient norm of a step; 0 does not clip."""


class Engine(Protocol):
    """Accumulates gradients of several rows and takes optimizer steps."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a row's share of the step's loss."""
        ...

    def step(self, *, learning_rate: float, gradient_scale: float = 1.0) -> float:
        """Multiply the gradient, clip it, update the weights; returns the gradient norm before clipping.

        A norm that is not finite updates nothing and is returned as it is.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Trained weights (`model.`) and optimizer state (`optimizer.`), by name, as they are (no copies)."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a `state()`; names and shapes must be the same."""
        ...
