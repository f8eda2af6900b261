"""Sets a process up before torch is loaded: how memory is returned, how threads wait, which notices are printed."""

import ctypes
import logging
import os
import platform
import warnings

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def prepare_process() -> None:
    """Call it once, first, in every process that trains."""
    _return_freed_memory()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Threads that spin while they wait make a run many times slower on cores that it shares.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The libraries' own bars and notices to developers would tear our progress display apart.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # accelerate imports DeepSpeed wherever it is installed, which says on standard output that it found no GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.funcName != "get_accelerator")


def reuse_freed_memory() -> None:
    """Keep what large tensors leave for the next ones, from now on: for a process that does forward passes alone.

    Their tensors have the same few sizes again and again, so there are hardly any holes: scoring a corpus on a CPU took
    a fifth less processor time, with 4 to 8 % more memory (measured).
    """
    _set_malloc(mmap_threshold=1 << 30, trim_threshold=(2 << 30) - 1)


def _return_freed_memory() -> None:
    """Give large tensors pages of their own, which go back to the system when they are freed.

    glibc raises its threshold for that to 32 MiB by itself, and the holes then made the resident set of a LoRA run on a
    CPU a third larger (4.0 instead of 3.1 GiB, measured). Huge pages keep the page faults cheap.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch
    _set_malloc(mmap_threshold=4 << 20, trim_threshold=64 << 20)


def _set_malloc(*, mmap_threshold: int, trim_threshold: int) -> None:
    """Bytes from which on an allocation has pages of its own, and of free memory at the heap's end that are kept."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)
