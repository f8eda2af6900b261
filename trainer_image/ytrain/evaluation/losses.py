"""Mean loss of samples, and how far the model has moved from its start, both over packed rows without gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ytrain.data.dataset import TokenDataset
from ytrain.data.packing import pack
from ytrain.data.rows import Row, Segment, build_row
from ytrain.engine.world import World
from ytrain.models.language_model import HiddenStates, LanguageModel
from ytrain.objective.head import Reference, divergence, label_losses


@dataclass(frozen=True)
class PerToken:
    """A mean over `tokens` labels, in nats per token."""

    value: float
    tokens: int


def mean_loss(model: LanguageModel, dataset: TokenDataset, *, row_tokens: int, packing: bool, world: World) -> PerToken:
    """-log p of every label of an epoch of a data set, averaged over labels; the ranks share the rows."""
    seen = dataset.epoch_samples(seed=0, epoch=0).tolist()  # the same ones at every evaluation
    total, tokens = 0.0, 0
    with model.evaluating():
        for row in rows(model, dataset, seen, row_tokens, packing, world):
            loss_R, _ = label_losses(model.hidden(row)[row.label_rows_R], row.labels_R, model.head())
            total += loss_R.double().sum().item()
            tokens += len(loss_R)
    return _mean(total, tokens, world)


def kl_to_start(
    model: LanguageModel,
    start: HiddenStates,
    dataset: TokenDataset,
    indices: Sequence[int],
    *,
    row_tokens: int,
    packing: bool,
    world: World,
) -> PerToken:
    """KL(start || now) at the labels of the given samples: it foretells forgetting (arXiv 2509.04259)."""
    total, tokens = 0.0, 0
    with model.evaluating():
        for row in rows(model, dataset, indices, row_tokens, packing, world):
            reference = Reference(hidden_RD=start.hidden(row)[row.label_rows_R], head=start.head())
            kl_R = divergence(model.hidden(row)[row.label_rows_R], model.head(), reference)
            total += kl_R.double().sum().item()
            tokens += len(kl_R)
    return _mean(total, tokens, world)


def _mean(total: float, tokens: int, world: World) -> PerToken:
    total, all_tokens = world.sum([total, float(tokens)])
    return PerToken(total / all_tokens, int(all_tokens))


def rows(
    model: LanguageModel, dataset: TokenDataset, indices: Sequence[int], row_tokens: int, packing: bool, world: World
) -> Iterator[Row]:
    """This rank's rows of all labels of the given samples, on the model's device; without packing, a sample a row."""
    lengths = dataset.lengths[np.asarray(indices, dtype=np.int64)]
    packed = pack(lengths, max(row_tokens, int(lengths.max()))) if packing else [[i] for i in range(len(indices))]
    for row in world.share(packed):
        segments = [Segment(indices[i], 0, int(dataset.supervised_counts[indices[i]])) for i in row]
        yield build_row(dataset, segments, model.device)
