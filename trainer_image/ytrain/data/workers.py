"""Worker processes that encode plain texts ahead of whoever stores them, for corpora that one process is too slow for.

The tokenizer's own threads do not use many cores well: they share its cache and Python's lock.
"""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np

from ytrain.data.encoding import Encoder, Tokens
from ytrain_api.errors import TransientError

WORTHWHILE_BYTES = 32 << 20
"""Files of less than this in all are encoded sooner than worker processes have started."""

MOST_PROCESSES = 32
"""One process reads for all; more of them would wait for it."""

Submit = Callable[[Sequence[str]], Callable[[], list[Tokens]]]
"""Begins to encode some texts; what it returns waits for their tokens."""


@contextmanager
def encoding(vocabulary: str, size: int) -> Iterator[tuple[Submit, int]]:
    """Encodes texts of files of `size` bytes with the tokenizer `vocabulary` (as JSON).

    Yields `submit`, and how many of its results may be awaited at a time.

    Raises:
        TransientError: a worker process was killed.
    """
    cores = usable_cores()
    if size < WORTHWHILE_BYTES or cores == 1:
        encoder = Encoder(vocabulary)
        yield (lambda texts: lambda: encoder.encode_texts(texts)), 1
        return
    processes = min(cores, MOST_PROCESSES)
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_start, initargs=(vocabulary,)) as pool:

        def submit(texts: Sequence[str]) -> Callable[[], list[Tokens]]:
            future = pool.submit(_encode, texts)

            def tokens() -> list[Tokens]:
                ids, lengths = future.result()
                return np.split(ids, np.cumsum(lengths)[:-1])

            return tokens

        try:
            yield submit, 2 * processes
        except BrokenProcessPool as error:
            raise TransientError(
                "a process that tokenises was killed, probably for lack of memory; give the machine or the pod more, "
                "then run the same command again"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: of a container those of its limit, of which the machine may have many more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if quota.is_file():
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, math.ceil(int(allowed) / int(period)))
    return cores


_encoder: Encoder


def _start(vocabulary: str) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the parent decides
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a core for each process
    _encoder = Encoder(vocabulary)


def _encode(texts: Sequence[str]) -> tuple[Tokens, list[int]]:
    """Ids of all texts in one array, which travels fast, and the number of each text's."""
    tokens = _encoder.encode_texts(texts)
    return np.concatenate(tokens), [len(ids) for ids in tokens]


def _end_with_the_parent() -> None:
    """A parent that is killed ends nobody; without it, this process would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
