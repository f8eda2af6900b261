"""The ranks that train together, and the few things that they tell one another besides gradients.

Every method is a collective: all ranks call it at the same point. With one rank none of them communicates.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

T = TypeVar("T")

NO_TIMEOUT = timedelta(days=30)
"""A rank may wait long while another writes or evaluates. Hangs are found by the launcher, which sees all ranks."""

PART_SECONDS = 60.0
"""How long a rank that is done waits for the others."""

BUCKET_BYTES = 64 << 20
"""Gradients that travel in one message: large enough for the bandwidth, small beside the model."""


@dataclass
class World:
    """This rank's place among `size` ranks. `connect` before the first collective."""

    rank: int = 0
    size: int = 1
    _device: torch.device = field(default=torch.device("cpu"), init=False, repr=False)
    """Where what travels must lie."""
    _store: Store | None = field(default=None, init=False, repr=False)

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> "World":
        """The place that RANK and WORLD_SIZE give, as torch.distributed's launchers set them; else a world of one."""
        return World(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)))

    @property
    def leads(self) -> bool:
        """Whether this rank writes what all of them have in common."""
        return self.rank == 0

    def listen(self) -> None:
        """Let rank 0 listen at MASTER_ADDR and MASTER_PORT before anybody connects: who comes too early waits long."""
        if self.size > 1 and self.leads and self._store is None:
            self._store = self._meeting_place()

    def connect(self, device: torch.device) -> None:
        """Meet the other ranks at MASTER_ADDR and MASTER_PORT."""
        if self.size == 1 or dist.is_initialized():
            return
        cuda = device.type == "cuda"
        self._device = device if cuda else torch.device("cpu")
        self._store = self._store or self._meeting_place()
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=self._store,
            timeout=NO_TIMEOUT,
            rank=self.rank,
            world_size=self.size,
            device_id=device if cuda else None,
        )

    def part(self) -> None:
        """Return once every rank has come here, after the last collective: one whose process ends while another still
        reads what it sent resets the connection, and the other one fails."""
        if self.size == 1 or not dist.is_initialized() or self._store is None:
            return
        keys = [f"parting/{rank}" for rank in range(self.size)]
        with suppress(
            RuntimeError
        ):  # rank 0, which holds the store, has seen all of them and is gone; or one never comes
            self._store.set(keys[self.rank], "1")
            self._store.wait(keys, timedelta(seconds=PART_SECONDS))

    def _meeting_place(self) -> Store:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(host, port, self.size, is_master=self.leads, timeout=NO_TIMEOUT, wait_for_workers=False)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of the items: every item is one rank's."""
        return items[self.rank :: self.size]

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over ranks."""
        if self.size == 1:
            return list(values)
        value = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(value)
        return [float(number) for number in value.tolist()]

    def sum_gradients(self, values: list[Tensor]) -> None:
        """The sums over ranks of many tensors of one type, in place, a bucket at a time."""
        if self.size == 1:
            return
        for bucket in _buckets(values):
            flat = torch.cat([value.flatten() for value in bucket])
            dist.all_reduce(flat)
            parts = torch.split(flat, [value.numel() for value in bucket])
            torch._foreach_copy_(bucket, [part.view_as(value) for part, value in zip(parts, bucket, strict=True)])

    def any(self, *flags: bool) -> list[bool]:
        """Which of the flags some rank has set."""
        return [count > 0 for count in self.sum([float(flag) for flag in flags])]

    def gather(self, value: Any) -> list[Any]:
        """The JSON value of every rank, in the order of ranks."""
        if self.size == 1:
            return [value]
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self._device)
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self._device)
        lengths[self.rank] = len(mine)
        dist.all_reduce(lengths)
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=self._device)
        padded[: len(mine)] = mine
        rows = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(rows, padded)
        return [
            json.loads(row[:length].cpu().numpy().tobytes()) for row, length in zip(rows, lengths.tolist(), strict=True)
        ]

    def agree(self, value: Any) -> Any:
        """Rank 0's JSON value."""
        return self.gather(value if self.leads else None)[0]

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.size > 1:
            dist.barrier()


def _buckets(values: list[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    filled = 0
    for value in values:
        size = value.numel() * value.element_size()
        if not buckets or filled + size > BUCKET_BYTES:
            buckets.append([])
            filled = 0
        buckets[-1].append(value)
        filled += size
    return buckets
