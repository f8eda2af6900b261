"""Which device computes, and in which number type."""

import resource
import sys
from pathlib import Path
from typing import Literal

import torch

from ytrain_api.errors import SpecError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["auto", "bfloat16", "float32"]


def choose_device(name: DeviceName) -> torch.device:
    """The device of that name; `auto` takes a GPU if there is one.

    Raises:
        SpecError: the device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[name]:
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise SpecError(f"--device {name}: this machine has none that torch can use; available: {there}")
    return torch.device(name)


def choose_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """The compute type; `auto` is bfloat16 where the device computes it fast, else float32.

    On a CPU without bfloat16 instructions it is far slower: 107 times for a 1024 x 576 x 1536 product (measured, AVX2).
    Vector instructions alone (AVX512-BF16) help on AMD's processors, not on Intel's (measured). An EPYC took 0.4 of
    float32's processor time for products of that size, 0.45 for scoring a corpus, 0.72 for the whole quickstart. On a
    Xeon without AMX float32 took half to three quarters of bfloat16's for such products, and 0.62 for the quickstart.
    """
    if name == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        told = Path("/proc/cpuinfo")
        return told.is_file() and bfloat16_units(told.read_text())
    return False


def bfloat16_units(cpuinfo: str) -> bool:
    """Whether a CPU, in Linux's words, multiplies matrices of bfloat16 faster than those of float32."""
    return "amx_bf16" in cpuinfo or ("avx512_bf16" in cpuinfo and "AuthenticAMD" in cpuinfo)


def describe(device: torch.device) -> str:
    """The device in words, for the report."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: the GPU's as torch allocated it, or the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
