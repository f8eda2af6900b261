"""Scores of a corpus: those of the plain formulas over full logits, packed or not, on any number of ranks, resumed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from small_models import Tokens, random_model, random_samples
from two_ranks import run_ranks, wait_for

from ytrain.corpus.scoring import ScoreFiles, score
from ytrain.engine.world import World
from ytrain.report.live import open_progress

pytestmark = pytest.mark.invariant

LENGTHS = (9, 31, 5, 17, 24, 40, 12, 12, 33, 7, 21, 14)
ROW_TOKENS = 12
"""So small that there are several shards, and samples that are longer than a row."""


@dataclass
class Dataset:
    """Samples as the scoring wants them."""

    samples: Sequence[Tokens]

    def __post_init__(self) -> None:
        self.lengths = np.array([len(sample.input_ids) for sample in self.samples])
        self.supervised_counts = np.array([sample.supervised.sum() for sample in self.samples])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tokens:
        return self.samples[index]


def scored(folder: Path, *, world: World | None = None, packing: bool = True, rows: int | None = None) -> bool:
    """Score the samples; with `rows`, stop after so many."""
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return rows is not None and asked > rows

    files: Any = Dataset(random_samples(LENGTHS))
    return score(
        random_model(),
        files,
        ScoreFiles(folder, files, ROW_TOKENS),
        packing=packing,
        world=world or World(),
        progress=open_progress(Console(quiet=True)),
        stopped=stopped,
    )


def score_alone(folder: Path, *, world: World) -> None:
    """A task of `run_ranks`."""
    assert scored(folder, world=world)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the ranks have: on some CPUs the last digits of a product depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of one rank that was not stopped."""
    folder = tmp_path_factory.mktemp("scores") / "whole"
    assert scored(folder)
    assert len(contents(folder)) >= 3
    return folder


def read(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Losses and entropies of every sample, and the mean hidden states."""
    dataset: Any = Dataset(random_samples(LENGTHS))
    files = ScoreFiles(folder, dataset, ROW_TOKENS)
    losses, entropies = zip(*files.sample_tokens(), strict=True)
    assert [part.tolist() for part in losses] == [files.tokens_of(i)[0].tolist() for i in range(len(LENGTHS))]
    return list(losses), list(entropies), np.concatenate([shard.hidden_SD for shard in files.finished()])


@pytest.mark.parametrize("packing", [True, False])
def test_loss_and_entropy_of_a_token_are_of_the_logits_row_that_predicts_it(tmp_path: Path, packing: bool) -> None:
    assert scored(tmp_path, packing=packing)
    losses, entropies, hidden = read(tmp_path)
    model = random_model().module.eval()
    model.set_attn_implementation("eager")
    for i, sample in enumerate(random_samples(LENGTHS)):
        with torch.no_grad():
            output = model(torch.from_numpy(sample.input_ids[None]).long(), output_hidden_states=True)
        p_TV = torch.softmax(output.logits[0].double(), dim=-1).numpy()
        at = np.flatnonzero(sample.supervised)
        rows = p_TV[at - 1]
        assert losses[i] == pytest.approx(-np.log(rows[np.arange(len(at)), sample.input_ids[at]]), rel=1e-4, abs=1e-5)
        assert entropies[i] == pytest.approx(-(rows * np.log(rows)).sum(1), rel=1e-4, abs=1e-5)
        mean = output.hidden_states[-1][0][at - 1].mean(0).numpy()
        assert hidden[i].astype(float) == pytest.approx(mean, rel=2e-3, abs=2e-3)  # stored in half precision


def test_two_ranks_score_as_one(tmp_path: Path, whole: Path) -> None:
    assert wait_for(run_ranks(2, [(score_alone, tmp_path / "two")])) == [0, 0]
    assert contents(tmp_path / "two") == contents(whole)


@pytest.mark.parametrize("rows", [0, 1, 5, 9])
def test_stopped_and_gone_on_with_is_as_if_it_had_not_been_stopped(tmp_path: Path, whole: Path, rows: int) -> None:
    folder = tmp_path / "stopped"
    assert not scored(folder, rows=rows)
    early = contents(folder) if folder.exists() else {}
    assert len(early) < len(contents(whole))
    assert scored(folder)
    assert contents(folder) == contents(whole)


def test_what_is_scored_is_not_scored_again_and_a_damaged_or_foreign_shard_is(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "damaged"
    assert scored(folder)
    first, second, third, *_ = sorted(folder.iterdir())
    first.write_bytes(first.read_bytes()[:100])
    third.write_bytes(second.read_bytes())
    before = second.stat().st_mtime_ns
    assert scored(folder)
    assert contents(folder) == contents(whole)
    assert second.stat().st_mtime_ns == before
