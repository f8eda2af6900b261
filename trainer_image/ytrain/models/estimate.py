"""Estimates the memory of one rank, part by part, from a traced micro-batch and the way that ZeRO shares it out.

Counts what PyTorch allocates (compare with `torch.cuda.max_memory_allocated`), not the device's own context (about
0.5 GiB on CUDA) and not what the allocator loses to fragmentation.
"""

from dataclasses import dataclass

from ytrain.models.step_trace import StepTrace

GRADIENT_BYTES = 4
"""A float32 gradient for every trained float32 master weight."""

ADAM_BYTES = 8
"""Two float32 moments a trained weight."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one rank at the peak of a step.

    `activations` wait for the backward pass, the weights that autocast converted among them; `head` comes on top while
    the loss is computed; `backward` is what the peak needs beyond both (a recomputed layer, temporary gradients).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    backward: int

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.head + self.backward


def estimate_memory(trace: StepTrace, *, zero_stage: int = 0, world_size: int = 1) -> MemoryEstimate:
    """The memory of one of `world_size` ranks.

    ZeRO stage 1 shares the optimizer's moments out among the ranks, 2 the gradients too, 3 the weights too (Rajbhandari
    et al., arXiv 1910.02054, figure 1). Communication buffers, and the layer that stage 3 gathers, are not counted.
    """
    assert zero_stage in (0, 1, 2, 3) and world_size >= 1

    def shared(size: int, from_stage: int) -> int:
        return -(-size // world_size) if zero_stage >= from_stage else size

    return MemoryEstimate(
        weights=shared(trace.weight_bytes, 3),
        gradients=shared(trace.trainable * GRADIENT_BYTES, 2),
        optimizer=shared(trace.trainable * ADAM_BYTES, 1),
        activations=trace.saved_bytes,
        head=trace.head_bytes,
        backward=max(0, trace.peak_bytes - trace.saved_bytes - trace.head_bytes),
    )
