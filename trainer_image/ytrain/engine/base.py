"""The interface of an engine: what the training loop may ask of it, whatever spreads and updates the weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")
MODEL, OPTIMIZER = "model.", "optimizer."
"""What names of an engine's state begin with."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW as the job asks for it; the learning rate comes with every step."""

    weight_decay: float
    gradient_clip: float
    """Largest gradient norm of a step; 0 does not clip."""


class Engine(Protocol):
    """Accumulates gradients of several rows and takes optimizer steps, together with the engines of other ranks."""

    @property
    def lockstep(self) -> bool:
        """Whether every rank must make equally many forward and backward passes, because they communicate in them."""
        ...

    def forward(self, compute: Callable[[], T]) -> T:
        """Run what computes a row's loss from the model."""
        ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a row's share of the step's loss; `last` of this rank's rows in the step."""
        ...

    def step(self, *, learning_rate: float, gradient_scale: float = 1.0) -> float:
        """Sum the gradient over ranks, multiply and clip it, update the weights; returns its norm before clipping.

        A norm that is not finite updates nothing and is returned as it is.
        """
        ...

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Trained weights (`MODEL`) and optimizer state (`OPTIMIZER`), whole, by name, one after another.

        The same for every engine and number of ranks, so that a run may go on with others. All ranks call it.
        """
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a `state()`; names and shapes must be the same."""
        ...

    def whole(self) -> AbstractContextManager[None]:
        """While it is open, every rank holds all weights and may use them alone, but not train. All ranks call it."""
        ...
