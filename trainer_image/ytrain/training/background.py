"""Writing beside training: copies of tensors go to a thread that writes them, a bounded number of bytes at a time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Queue

import torch
from torch import Tensor

PART_BYTES = 256 << 20
"""Tensors that travel together; a larger tensor travels alone."""

PARTS_AT_ONCE = 5
"""One part is being filled, two wait, one is being written, which takes it twice: what a write adds to a run's memory
at most."""

Part = dict[str, Tensor]


class BackgroundWrite:
    """One state on its way to the disk. `write` gets its parts, in a thread of its own."""

    def __init__(self, write: Callable[[Iterator[Part]], None]) -> None:
        self._parts: Queue[Part | BaseException | None] = Queue(maxsize=2)
        self._failure: BaseException | None = None
        # A daemon: who interrupts a run twice does not want to wait for it.
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint", daemon=True)
        self._thread.start()

    def take(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the state; returns when all of it is copied, which is before it is written."""
        try:
            for part in _copied(state):
                self._parts.put(part)
        except BaseException as error:
            self._parts.put(error)
            raise
        self._parts.put(None)

    def raise_failure(self) -> None:
        """Raise what `write` raised, if it has."""
        if self._failure is not None:
            raise self._failure

    def join(self) -> None:
        """Return when `write` has ended, however it did."""
        self._thread.join()

    def _run(self, write: Callable[[Iterator[Part]], None]) -> None:
        parts = self._arriving()
        try:
            write(parts)
        except BaseException as error:
            self._failure = error
            # Whoever hands over the rest must not wait for ever.
            while self._parts.get() is not None:
                pass

    def _arriving(self) -> Iterator[Part]:
        while (part := self._parts.get()) is not None:
            if isinstance(part, BaseException):
                self._parts.put(None)
                raise part
            yield part


def _copied(state: Iterable[tuple[str, Tensor]]) -> Iterator[Part]:
    """Copies of the tensors in main memory, in parts of about `PART_BYTES`."""
    part: Part = {}
    filled = 0
    for name, tensor in state:
        copy = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        part[name] = copy
        filled += copy.numel() * copy.element_size()
        if filled >= PART_BYTES:
            yield part
            part, filled = {}, 0
    if part:
        yield part
