"""How much memory sampling holds: keys and values of answers, each as long as it may be."""

import torch
from transformers import PretrainedConfig

from ytrain.rl.sampler import BATCH_CHAINS
from ytrain_api.rl import Rl


def sampling_cache_bytes(rl: Rl, config: PretrainedConfig, longest_prompt: int, compute_dtype: torch.dtype) -> int:
    """Bytes of one rank at most, beside the weights: of answers that are decoded together, or that forks need again.

    A sliding window, which holds less, is taken for full attention.

    Args:
        longest_prompt: in tokens.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    of_token: int = 2 * text.num_hidden_layers * heads * width * compute_dtype.itemsize
    longest = longest_prompt + rl.rollout.max_new_tokens
    prompts = min(rl.rollout.prompts_per_step, max(1, BATCH_CHAINS // rl.rollout.chains))
    chains = prompts * rl.rollout.chains
    if rl.tree is None:
        return chains * longest * of_token
    forks = prompts * rl.tree.forks
    decoded = min(forks, max(1, BATCH_CHAINS // rl.tree.branches)) * rl.tree.branches
    kept = chains + (rl.tree.rounds - 1) * forks * rl.tree.branches
    # Branches of a batch end together at the earliest: one that begins late is padded by what others still write.
    widest = longest + rl.rollout.max_new_tokens
    return (kept * longest + max(chains * longest, decoded * widest)) * of_token
