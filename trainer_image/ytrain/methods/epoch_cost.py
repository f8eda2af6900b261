"""What an epoch of training on a corpus would forward; scoring it has rows of its own (`scored_row_tokens`)."""

from dataclasses import dataclass

from ytrain.data.dataset import TokenDataset
from ytrain.data.packing import pack
from ytrain.methods.setup import row_tokens
from ytrain_api.job import Spec


@dataclass(frozen=True)
class EpochCost:
    """What one pass over the records forwards under the job's packing."""

    tokens: int
    rows: int
    row_tokens: int
    """Most tokens of a row."""
    filled: float | None
    """Share of the rows that holds tokens; None where every sample has a row of its own."""


def epoch_cost(spec: Spec, dataset: TokenDataset) -> EpochCost:
    """The cost of an epoch over these records."""
    lengths = dataset.lengths
    size, tokens = max(row_tokens(spec), int(lengths.max())), int(lengths.sum())
    rows = len(pack(lengths, size)) if spec.data.packing else len(lengths)
    return EpochCost(tokens, rows, size, tokens / (rows * size) if spec.data.packing else None)
