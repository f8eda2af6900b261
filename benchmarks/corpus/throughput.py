"""How fast a corpus is scored, against the same analysis sample by sample with transformers alone.

`python benchmarks/corpus/throughput.py` scores the records of examples/make_flawed_data.py with each of

- `ytrain`: rows of packed samples, what they begin with in common once, logits of answer tokens only, in chunks;
- `sample by sample`: one forward pass a record, its whole logits matrix, loss, entropy and mean hidden state from it;
- `two passes`: loss and entropy each with a forward pass of its own.

Each way has a process of its own, as its user would start it, and they take turns, on as many threads as
OMP_NUM_THREADS says. The largest difference of a token's loss or entropy is printed too: they must compute the same.
Needs `make quickstart-corpus` once.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from ytrain.corpus.scoring import ROW_TOKENS, ScoreFiles, score
from ytrain.data import DataSource, TokenDataset, TokenSettings, prepare
from ytrain.engine.process import prepare_process, reuse_freed_memory
from ytrain.engine.world import World
from ytrain.models.load import load_language_model, load_tokenizer
from ytrain.report.live import open_progress

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))
from make_flawed_data import fix_hashes, flawed, write_corpus  # noqa: E402

MODEL = REPOSITORY / ".quickstart/models/SmolLM2-135M-Instruct"
WAYS = ("ytrain", "sample by sample", "two passes")
Scores = tuple[np.ndarray, np.ndarray]
"""Loss and entropy of all answer tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--data", type=Path, help="JSONL whose first records are taken, in place of the example's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--row-tokens", type=int, default=ROW_TOKENS, help="of ytrain's rows")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of all ways")
    arguments = parser.parse_args()
    fix_hashes()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as processes:
        dataset = tokenised(Path(scratch), arguments.records, arguments.data)
        ways = {name: processes.enter_context(asked(name, arguments, scratch)) for name in WAYS}
        run_all(ways, dataset, arguments.rounds)


Answer = tuple[Scores, float, float]
"""Scores, and the seconds and seconds of processor time that they took."""


@contextmanager
def asked(way: str, arguments: argparse.Namespace, scratch: str) -> Iterator[Callable[[], Answer]]:
    """A process that computes the scores whenever it is asked."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(way, arguments, Path(scratch), theirs), daemon=True)
    process.start()
    theirs.close()
    ours.recv()  # it is ready

    def ask() -> Answer:
        ours.send(None)
        return ours.recv()

    try:
        yield ask
    finally:
        process.kill()


def answer(way: str, arguments: argparse.Namespace, scratch: Path, channel: Connection) -> None:
    """What such a process does."""
    dtype = getattr(torch, arguments.precision)
    dataset = tokenised(scratch, arguments.records, arguments.data)
    if way == "ytrain":
        prepare_process()
        reuse_freed_memory()
        compute = packed(scratch, dataset, arguments.row_tokens, dtype)
    else:
        compute = alone(dataset, dtype, passes=2 if way == "two passes" else 1)
    channel.send(None)
    while True:
        channel.recv()
        began, used = time.monotonic(), time.process_time()
        scores = compute()
        channel.send((scores, time.monotonic() - began, time.process_time() - used))


def run_all(ways: dict[str, Callable[[], Answer]], dataset: TokenDataset, rounds: int) -> None:
    """Run every way in turn and print the table."""
    clock: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Scores] = {}
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            found[name], seconds, used = ways[name]()
            clock[name].append(seconds)
            processor[name].append(used)
            print(f"round {turn + 1}: {name} {seconds:.1f} s", file=sys.stderr)
    tokens = int(dataset.lengths.sum())
    print(f"{len(dataset)} records, {tokens:,} tokens, {int(dataset.supervised_counts.sum()):,} of answers")
    print(f"{torch.get_num_threads()} threads, {rounds} rounds\n")
    print(f"{'way':20}{'tokens/s':>12}{'tokens a CPU-second':>24}{'CPU time of ytrain':>22}{'largest difference':>22}")
    for name in ways:
        rate, cpu_rate = tokens / statistics.median(clock[name]), tokens / statistics.median(processor[name])
        times = statistics.median(processor[name]) / statistics.median(processor["ytrain"])
        difference = max(float(np.abs(a - b).max()) for a, b in zip(found[name], found["ytrain"], strict=True))
        print(f"{name:20}{rate:>12.0f}{cpu_rate:>24.0f}{times:>21.2f}x{difference:>22.1e}")


def tokenised(folder: Path, records: int, data: Path | None) -> TokenDataset:
    """The records as the job would read them."""
    if data is None:
        write_corpus(folder, flawed(records, 0.05, 0, seed=1))
    else:
        with data.open() as lines:
            (folder / "records.jsonl").write_text("".join(islice(lines, records)))
    source = DataSource((("records.jsonl", folder / "records.jsonl"),))
    return prepare([source], load_tokenizer(MODEL), TokenSettings(max_tokens=1024), folder / "cache").dataset


def packed(folder: Path, dataset: TokenDataset, row_tokens: int, dtype: torch.dtype) -> Callable[[], Scores]:
    """Scores as a corpus job computes them."""
    model = load_language_model(MODEL, compute_dtype=dtype, device=torch.device("cpu"), trained=False)
    turns = iter(range(1000))

    def compute() -> Scores:
        files = ScoreFiles(folder / f"scores-{next(turns)}", dataset, row_tokens)
        progress = open_progress(Console(quiet=True))
        score(model, dataset, files, packing=True, world=World(), progress=progress, stopped=lambda: False)
        losses, entropies = zip(*files.sample_tokens(), strict=True)
        return np.concatenate(losses), np.concatenate(entropies)

    return compute


def alone(dataset: TokenDataset, dtype: torch.dtype, *, passes: int) -> Callable[[], Scores]:
    """Scores by plain transformers."""
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype).eval()

    def rows_of(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities `[R, V]` at the answer's rows, and the labels."""
        sample = dataset[index]
        ids = torch.from_numpy(sample.input_ids.astype(np.int64))
        at = torch.from_numpy(np.flatnonzero(sample.supervised))
        output = model(input_ids=ids[None], use_cache=False, output_hidden_states=True)
        output.hidden_states[-1][0, at - 1].mean(0)
        return torch.log_softmax(output.logits[0].float(), dim=-1)[at - 1], ids[at]

    def compute() -> Scores:
        losses, entropies = [], []
        with torch.inference_mode():
            for index in range(len(dataset)):
                log_p, labels = rows_of(index)
                losses.append(-log_p.gather(1, labels[:, None])[:, 0].numpy())
                if passes == 2:
                    log_p, _ = rows_of(index)
                entropies.append(-(log_p.exp() * log_p).sum(-1).numpy())
        return np.concatenate(losses), np.concatenate(entropies)

    return compute


if __name__ == "__main__":
    main()
