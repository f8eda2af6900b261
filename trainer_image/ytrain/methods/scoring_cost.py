"""What scoring a corpus computes, which is also what an epoch of training on it would forward."""

from dataclasses import dataclass

from ytrain.data.dataset import TokenDataset
from ytrain.data.packing import pack
from ytrain.methods.setup import row_tokens
from ytrain_api.job import Spec


@dataclass(frozen=True)
class ScoringCost:
    """What one pass over the records forwards under the job's packing."""

    tokens: int
    rows: int
    row_tokens: int
    """Most tokens of a row."""
    filled: float | None
    """Share of the rows that holds tokens; None where every sample has a row of its own."""


def scoring_cost(spec: Spec, dataset: TokenDataset) -> ScoringCost:
    """The cost of an epoch over these records."""
    lengths = dataset.lengths
    size, tokens = max(row_tokens(spec), int(lengths.max())), int(lengths.sum())
    rows = len(pack(lengths, size)) if spec.data.packing else len(lengths)
    return ScoringCost(tokens, rows, size, tokens / (rows * size) if spec.data.packing else None)
