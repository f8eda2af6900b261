"""What becomes of a sample that is longer than `maxTokens`: nothing, its beginning, or windows that cover it.

Whichever it is, a label is trained at most once, and whoever calls counts what was lost.
"""

from typing import Literal

from ytrain.data.encoding import Mask, Tokens

Overlong = Literal["skip", "truncate", "split"]


def fit(ids: Tokens, mask: Mask, max_tokens: int, policy: Overlong, context: int) -> list[tuple[Tokens, Mask]]:
    """Brings one sample `[T]` with its label mask `[T]` to at most `max_tokens` tokens.

    Args:
        policy: `truncate` keeps the beginning. `split` makes windows such that each label is trained in exactly one.
        context: tokens that a window of `split` repeats from the one before, unsupervised; at least 1, because
            the first token of a sample is never predicted.

    Returns:
        The samples that hold a label; none if the policy is `skip` or no label is left.
    """
    if len(ids) <= max_tokens:
        return [(ids, mask)]
    if policy == "skip":
        return []
    if policy == "truncate":
        return [(ids[:max_tokens], mask[:max_tokens])] if mask[:max_tokens].any() else []
    return [(i, m) for i, m in _windows(ids, mask, max_tokens, context) if m.any()]


def _windows(ids: Tokens, mask: Mask, max_tokens: int, context: int) -> list[tuple[Tokens, Mask]]:
    assert 1 <= context < max_tokens
    windows = [(ids[:max_tokens], mask[:max_tokens])]
    done = max_tokens
    while done < len(ids):
        start = done - context
        labels = mask[start : start + max_tokens].copy()
        labels[:context] = False
        windows.append((ids[start : start + max_tokens], labels))
        done = start + max_tokens
    return windows


def split_context(max_tokens: int, *, chat: bool) -> int:
    """Tokens that a split window repeats: one for plain text, half a window for a chat.

    An answer without its question teaches the wrong thing, so every label of a split chat sees at least half a window.
    """
    return max(1, max_tokens // 2) if chat else 1
