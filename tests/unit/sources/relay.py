"""A server between a client and another server, which fails when it is told to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress


class Relay:
    """Passes connections on to a server, and what it answers back, until it is told to fail."""

    def __init__(self, to: tuple[str, int], *, stall_after: int | None = None, break_after: int | None = None) -> None:
        self._to = to
        self._stall_after, self._break_after = stall_after, break_after
        self.answered = 0
        self.stalled = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            for source, sink, counted in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        for block in self._blocks(source):
            if counted:
                with self._lock:
                    self.answered += len(block)
                if self._break_after is not None and self.answered > self._break_after:
                    break
                if self._stall_after is not None and self.answered > self._stall_after:
                    self.stalled.set()
                    self._ended.wait()
            try:
                sink.sendall(block)
            except OSError:
                break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the other thread too, which closing would not

    @staticmethod
    def _blocks(source: socket.socket) -> Iterator[bytes]:
        try:
            while block := source.recv(1 << 16):
                yield block
        except OSError:
            return
