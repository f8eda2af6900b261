"""Stop signals: the first asks the loop to end at a step boundary and save, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

INTERRUPTED_TWICE = 130
"""Exit code after a second Ctrl-C, as shells count it; nothing is saved then."""


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals(announce: Callable[[str], None]) -> Iterator[StopRequest]:
    """SIGINT and SIGTERM set the yielded request; `announce` tells what happens now.

    It is called in a thread of its own: a signal may come while the main thread holds the lock that `announce` needs.
    """
    request = StopRequest()
    words: SimpleQueue[str | None] = SimpleQueue()  # putting is reentrant

    def tell() -> None:
        for text in iter(words.get, None):
            announce(text)

    def handle(number: int, _: FrameType | None) -> None:
        if request:
            # Files are written under temporary names, so leaving in the middle of one loses only that one.
            os._exit(INTERRUPTED_TWICE if number == signal.SIGINT else 128 + number)
        request.signal = signal.Signals(number)
        words.put(f"{request.signal.name}: saving at the end of this step; once more ends at once without saving")

    teller = threading.Thread(target=tell, name="stop", daemon=True)
    teller.start()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        words.put(None)
        teller.join()
