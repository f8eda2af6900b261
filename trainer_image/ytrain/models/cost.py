"""Foretells the work of a training: floating-point operations, the time they take here, and what windows add.

The formulas count matrix products only (multiply and add are two operations), as is usual in the field; the speed
of the device is measured on the model's own shapes.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

MATMUL_SHARE = 0.6
"""Speed of training as a share of bare matrix products, measured on one CPU core: .63 full, .56 LoRA. Norms, rotary
positions, the softmax of the head and the additions of gradients take the rest."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """What the cost formulas need to know of a model.

    `body` counts the weights of all linear layers but the head, `head` those of the output head (tied or not),
    `attention` is layers times heads times head width.
    """

    body: int
    head: int
    attention: int


@dataclass(frozen=True, kw_only=True)
class WindowCost:
    """Tokens of one epoch, with a step after every n answer tokens."""

    windows: int
    forward_tokens: int
    trained_tokens: int
    whole_forward_tokens: int

    @property
    def forward_per_trained(self) -> float:
        """Tokens forwarded for each trained one."""
        return self.forward_tokens / max(1, self.trained_tokens)

    @property
    def times_whole(self) -> float:
        """How many times the tokens of training without windows are forwarded."""
        return self.forward_tokens / max(1, self.whole_forward_tokens)


def model_size(config: PretrainedConfig) -> ModelSize:
    """Sizes by building the model without data. Of a mixture of experts, the experts themselves are not counted."""
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    head = module.get_output_embeddings()
    linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    text = config.get_text_config()
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSize(
        body=sum(part.weight.numel() for part in linear),
        head=head.weight.numel(),
        attention=text.num_hidden_layers * text.num_attention_heads * head_width,
    )


def training_flops(
    size: ModelSize,
    lengths: Iterable[int],
    supervised: int,
    *,
    lora: bool,
    gradient_checkpointing: bool = False,
    forwarded: float = 1.0,
) -> float:
    """Operations to train on samples of `lengths` tokens, `supervised` of which are labels, once.

    Per token and weight: 2 forward, 2 for the gradient of the input, 2 for that of the weight (not with LoRA), 2 to
    compute again with checkpointing. A token attends to half of its sample on average; the head sees labels only.
    `forwarded` is the share of the tokens that is not computed for another sample already.
    """
    tokens, pairs = 0, 0.0
    for length in lengths:
        tokens += length
        pairs += length * length / 2
    again = 2 if gradient_checkpointing else 0
    backward = 2 if lora else 4
    body = (2 + backward + again) * size.body * tokens
    attention = 2 * (6 + again) * size.attention * pairs
    return forwarded * (body + attention) + (2 + backward) * size.head * supervised


def training_seconds(flops: float, matmul_rate: float) -> float:
    """Seconds for the operations, at the rate (operations per second) that `measure_matmul_rate` found."""
    return flops / (matmul_rate * MATMUL_SHARE)


def measure_matmul_rate(
    config: PretrainedConfig, *, tokens: int, dtype: torch.dtype, device: torch.device, seconds: float = 0.5
) -> float:
    """Operations per second of the products of an MLP of this model with `tokens` rows, measured for `seconds`."""
    text = config.get_text_config()
    wide: int = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    width: int = text.hidden_size
    rows = torch.randn(tokens, width, dtype=dtype, device=device)
    weight = torch.randn(width, wide, dtype=dtype, device=device)
    product = rows @ weight  # the first one starts libraries and clocks
    _wait_for(device)
    done, began, spent = 0, time.perf_counter(), 0.0
    while spent < seconds:
        torch.mm(rows, weight, out=product)
        _wait_for(device)
        done += 1
        spent = time.perf_counter() - began
    return 2.0 * tokens * width * wide * done / spent


def window_cost(samples: Iterable[tuple[int, int]], window_tokens: int) -> WindowCost:
    """The cost of `window_tokens` = n for samples of (prompt tokens, answer tokens).

    A window forwards its sample up to the token before its last label: window k of prompt p and answer a takes
    p + min(k n, a) - 1 tokens.
    """
    windows = forward = trained = whole = 0
    for prompt, answer in samples:
        count = -(-answer // window_tokens)
        windows += count
        trained += answer
        if answer:
            forward += count * (prompt - 1) + window_tokens * count * (count - 1) // 2 + answer
            whole += prompt + answer - 1
    return WindowCost(windows=windows, forward_tokens=forward, trained_tokens=trained, whole_forward_tokens=whole)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
