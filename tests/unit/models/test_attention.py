"""The masks of a forward pass: made once for all its layers, as kernels take them without a copy."""

from typing import Any

import pytest
import torch

from ytrain.models.attention import MadeMasks, segment_attention

pytestmark = pytest.mark.unit

SHARING = (slice(0, 5),), (slice(0, 5), slice(5, 12)), (slice(0, 5), slice(12, 19)), (slice(0, 5), slice(19, 30))
"""A beginning of 5 tokens and three samples that go on from it, two of them equally long."""


@pytest.mark.parametrize(
    ("given", "masks"),
    [
        ({}, 0),
        ({"node_paths": SHARING}, 2),
        ({"node_paths": SHARING, "sliding_window": 4}, 3),
        ({"node_masks": tuple(torch.ones(n, n, dtype=torch.bool).tril() for n in (5, 7, 7, 11))}, 4),
    ],
)
@pytest.mark.parametrize("autocast", [False, True])
def test_layers_share_masks_that_no_kernel_has_to_copy(given: dict[str, Any], masks: int, autocast: bool) -> None:
    made: MadeMasks = {}
    query, key, value = torch.randn(3, 1, 2, 30, 8).unbind()

    def layer(made_masks: MadeMasks | None) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return segment_attention(
                *(torch.nn.Identity(), query, key, value, None),
                node_boundaries=(0, 5, 12, 19, 30),
                made_masks=made_masks,
                **given,
            )[0]

    first = layer(made)
    kept = [mask for mask in made.values() if mask is not None]
    assert torch.equal(first, layer(made)) and torch.equal(first, layer(None))
    assert len(kept) == masks
    assert all(a is b for a, b in zip(kept, (mask for mask in made.values() if mask is not None), strict=True))
    assert {mask.dtype for mask in kept} <= {first.dtype}
    assert all(mask.stride(0) % 8 == 0 and mask.stride(1) == 1 for mask in kept), "copied in every layer on CUDA"
