"""Shows a sample as a person reads it: its text in runs that are learned and runs that are not.

For `ytrain check`, which prints them in colour.
"""

from typing import TYPE_CHECKING

import numpy as np

from ytrain.data.dataset import Sample

if TYPE_CHECKING:
    # Not wanted in the processes that encode texts: it takes seconds and much memory to import.
    from transformers import PreTrainedTokenizerBase


def runs(sample: Sample, tokenizer: "PreTrainedTokenizerBase") -> list[tuple[str, bool]]:
    """The decoded sample, special tokens included, cut where the mask changes.

    Returns:
        Each run's text and whether it is supervised.
    """
    changes = np.flatnonzero(np.diff(sample.supervised)) + 1
    pieces = np.split(np.arange(len(sample.input_ids)), changes)
    return [
        (str(tokenizer.decode(sample.input_ids[piece].tolist())), bool(sample.supervised[piece[0]])) for piece in pieces
    ]
