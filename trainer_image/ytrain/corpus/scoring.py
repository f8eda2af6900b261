"""Per-token loss and entropy of every answer, and a mean hidden state per sample, kept in files by shards of samples.

A shard is packed and computed the same way whichever rank does it, so the scores do not depend on the number of ranks,
and a run that was stopped goes on with the shards that are missing.
"""

import math
import time
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ytrain.data.dataset import TokenDataset
from ytrain.data.prefixes import common_prefix, sort_key
from ytrain.data.rows import Segment, build_row
from ytrain.engine.world import World
from ytrain.models.language_model import LanguageModel
from ytrain.objective.head import label_losses
from ytrain.report.live import Progress
from ytrain_api.errors import SpecError

ROW_TOKENS = 4096
"""Of one forward pass, at least, where the job does not say: without a backward pass they need little memory."""

SHARD_ROWS = 2
"""Rows of tokens that a shard holds about: what a kill may cost at most, what is in memory at a time, and what a rank
does alone. Its samples share what they begin with: shards of eight rows would spare one token in a hundred more."""


@dataclass(frozen=True)
class Shard:
    """The scores of consecutive samples."""

    loss_R: npt.NDArray[np.float32]
    """-log p of every label, in nats, sample by sample."""
    entropy_R: npt.NDArray[np.float32]
    """Entropy of the prediction at every label, in nats, from the same logits row."""
    hidden_SD: npt.NDArray[np.float16]
    """Mean final hidden state of each sample over the rows that predict its labels."""


class ScoreFiles:
    """The shards of a data set in a folder.

    Args:
        row_tokens: most tokens of one forward pass; a longer sample has a row of its own.
    """

    def __init__(self, folder: Path, dataset: TokenDataset, row_tokens: int) -> None:
        self.folder = folder
        self.row_tokens = row_tokens
        self._counts = dataset.supervised_counts
        begins = np.cumsum(dataset.lengths, dtype=np.int64) - dataset.lengths
        _, firsts = np.unique(begins // (SHARD_ROWS * row_tokens), return_index=True)
        self._firsts: list[int] = [*firsts.tolist(), len(dataset)]
        self.shards = len(firsts)

    def indices(self, shard: int) -> range:
        """The samples of a shard."""
        return range(self._firsts[shard], self._firsts[shard + 1])

    def read(self, shard: int) -> Shard | None:
        """The stored shard; None if there is none, or it is damaged, or of other samples."""
        try:
            with np.load(self._path(shard), allow_pickle=False) as file:
                stored = Shard(file["loss"], file["entropy"], file["hidden"])
        except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        indices = self.indices(shard)
        sizes = len(stored.loss_R), len(stored.entropy_R), len(stored.hidden_SD)
        labels = int(self._counts[indices].sum())
        return stored if sizes == (labels, labels, len(indices)) else None

    def write(self, number: int, shard: Shard) -> None:
        """Store it, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(number)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, loss=shard.loss_R, entropy=shard.entropy_R, hidden=shard.hidden_SD)
        partial.replace(path)

    def finished(self) -> Iterator[Shard]:
        """All shards in order, once every one is written.

        Raises:
            SpecError: one is missing, which another rank has written where this one cannot see it.
        """
        for number in range(self.shards):
            shard = self.read(number)
            if shard is None:
                raise SpecError(
                    f"spec.storage: {self._path(number)} is missing: all workers must see the same work folder; "
                    "name a claim that they share, or set spec.workers.replicas to 1"
                )
            yield shard

    def sample_tokens(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Loss and entropy of each sample's labels, in order."""
        for number, shard in enumerate(self.finished()):
            ends = np.cumsum(self._counts[self.indices(number)])[:-1]
            yield from zip(np.split(shard.loss_R, ends), np.split(shard.entropy_R, ends), strict=True)

    def tokens_of(self, sample: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Loss and entropy of one sample's labels."""
        number = bisect_right(self._firsts, sample) - 1
        shard = self.read(number)
        assert shard is not None
        begin = int(self._counts[self._firsts[number] : sample].sum())
        end = begin + int(self._counts[sample])
        return shard.loss_R[begin:end], shard.entropy_R[begin:end]

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:06d}.npz"


def score(
    model: LanguageModel,
    dataset: TokenDataset,
    files: ScoreFiles,
    *,
    packing: bool,
    world: World,
    progress: Progress,
    stopped: Callable[[], bool],
) -> bool:
    """Score what is not scored yet; False where `stopped` says so on some rank before the end.

    Args:
        stopped: is asked before every row.
    """
    missing = [shard for shard in range(files.shards) if files.read(shard) is None]
    missing = world.agree(missing)  # another rank may already be writing
    mine = list(world.share(missing))
    for turn in range(math.ceil(len(missing) / world.size)):
        began = time.monotonic()
        if turn < len(mine):
            indices = files.indices(mine[turn])
            rows = _rows(dataset, indices, files.row_tokens, packing)
            shard = _score_rows(model, dataset, indices, rows, stopped)
            if shard is not None:
                files.write(mine[turn], shard)
            if shard is not None and world.leads:
                done = files.shards - len(missing) + min((turn + 1) * world.size, len(missing))
                seconds, tokens = time.monotonic() - began, int(dataset.lengths[indices].sum())
                loss = float(shard.loss_R.mean())
                figures = {
                    "step": done,
                    "epoch": done / files.shards,
                    "loss": loss if math.isfinite(loss) else None,
                    "tokens": tokens * world.size,
                    "supervisedTokens": len(shard.loss_R) * world.size,
                    "tokensPerSecond": tokens * world.size / seconds,
                    "seconds": seconds,
                }
                progress.step(figures, files.shards)
        if world.any(stopped())[0]:
            return False
    world.wait()
    return True


def _rows(dataset: TokenDataset, indices: range, row_tokens: int, packing: bool) -> list[list[int]]:
    """The rows of a shard, as indices into its samples: those that begin alike stand together and share that part."""
    if not packing:
        return [[i] for i in range(len(indices))]
    ids = [dataset[index].input_ids for index in indices]
    rows: list[list[int]] = []
    free = 0
    order = sorted(range(len(ids)), key=lambda i: sort_key(ids[i]))
    for before, i in zip([order[0], *order], order, strict=False):
        more = len(ids[i]) - common_prefix(ids[before], ids[i])
        if not rows or more > free:
            rows.append([])
            free, more = row_tokens, len(ids[i])
        rows[-1].append(i)
        free -= more
    return rows


def _score_rows(
    model: LanguageModel,
    dataset: TokenDataset,
    indices: range,
    rows: Sequence[Sequence[int]],
    stopped: Callable[[], bool],
) -> Shard | None:
    """The scores of a shard's samples; None where it was stopped before the end."""
    losses: dict[int, npt.NDArray[np.float32]] = {}
    entropies: dict[int, npt.NDArray[np.float32]] = {}
    means: dict[int, npt.NDArray[np.float16]] = {}
    with model.evaluating():
        for members in rows:
            if stopped():
                return None
            counts = [int(dataset.supervised_counts[indices[i]]) for i in members]
            segments = [Segment(indices[i], 0, count) for i, count in zip(members, counts, strict=True)]
            row = build_row(dataset, segments, model.device)
            hidden_RD = model.hidden(row)[row.label_rows_R]
            loss_R, entropy_R = label_losses(hidden_RD, row.labels_R, model.head())
            parts = (torch.split(values, counts) for values in (loss_R, entropy_R, hidden_RD))
            for i, loss, entropy, hidden in zip(members, *parts, strict=True):
                losses[i], entropies[i] = loss.cpu().numpy(), entropy.cpu().numpy()
                means[i] = hidden.float().mean(0).cpu().numpy().astype(np.float16)
    order = range(len(indices))
    return Shard(
        np.concatenate([losses[i] for i in order]),
        np.concatenate([entropies[i] for i in order]),
        np.stack([means[i] for i in order]),
    )
