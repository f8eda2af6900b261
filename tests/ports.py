"""Ports for servers that other processes will start: held meanwhile, so that nobody else gets them."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that the kernel gives to nobody who asks for any, nor to a connection that goes out.

    It is bound and not listened at: connections are refused until somebody who names it listens there. He may, again
    and again, if he sets SO_REUSEADDR too, as asyncio, Go and TCPStore do.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        yield int(held.getsockname()[1])
