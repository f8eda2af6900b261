"""The record of a run: one line per optimizer step in metrics.jsonl, the same figures as TensorBoard scalars."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch import Tensor

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
HISTOGRAM_BINS = 20
SCALARS = ("loss", "weightedLoss", "learningRate", "gradientNorm", "tokensPerSecond", "peakMemoryBytes")


def weight_histogram(weights_R: Tensor) -> list[int]:
    """Counts of token weights in `HISTOGRAM_BINS` equal bins of [0, 1]; larger weights count in the last one."""
    bins_R = (weights_R * HISTOGRAM_BINS).long().clamp_(0, HISTOGRAM_BINS - 1)
    return torch.bincount(bins_R.cpu(), minlength=HISTOGRAM_BINS).tolist()


class MetricsLog:
    """Appends steps to a run folder; `after` is the step that the run resumes from, later lines are dropped."""

    def __init__(self, folder: Path, *, after: int) -> None:
        path = folder / METRICS
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= after]
        replacement = path.with_suffix(".partial")
        replacement.write_text("".join(f"{line}\n" for line in kept))
        replacement.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._events = EventFileWriter(str(folder / TENSORBOARD))

    def add(self, line: dict[str, Any], *, wall_time: float) -> None:
        """Record one step."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        scalars = {f"train/{name}": line.get(name) for name in SCALARS}
        scalars |= {f"rl/{name}": value for name, value in line.get("rl", {}).items()}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items() if value is not None]
        self._events.add_event(Event(step=line["step"], wall_time=wall_time, summary=Summary(value=values)))

    def sync(self) -> None:
        """Force the lines to the disk, before a checkpoint says that they are there."""
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines of a metrics file up to the first that a kill or a loss of power has damaged; a checkpoint makes sure
    that those of the steps before it are there."""
    lines: list[str] = []
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                json.loads(line)["step"]
            except (ValueError, TypeError, KeyError):
                break
            lines.append(line.rstrip("\n"))
    return lines
