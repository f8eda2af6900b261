"""Tells how far tokenising is and how fast it goes, about once a second."""

import time
from collections.abc import Callable

from ytrain.data.opening import BytesRead

TELL_SECONDS = 1.0


class Pace:
    """The pace of tokenising files of `size` bytes; `done` is counted up as they are read."""

    def __init__(self, size: int, tell: Callable[[str], None]) -> None:
        self.size = size
        self.done = BytesRead()
        self._tell = tell
        self._began = self._told = time.monotonic()

    def tell(self, tokens: int) -> None:
        """So many tokens were made until now."""
        now = time.monotonic()
        if now - self._told < TELL_SECONDS:
            return
        self._told = now
        share = self.done.count / self.size if self.size else 1.0
        seconds = now - self._began
        rates = f"{tokens / seconds:,.0f} tokens/s, {self.done.count / seconds / 1e6:.1f} MB/s"
        self._tell(f"{share:.0%} of {self.size / 1e6:,.0f} MB, {tokens:,} tokens, {rates}")
