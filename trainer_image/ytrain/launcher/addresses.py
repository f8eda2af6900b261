"""This machine's addresses, of IPv4 and IPv6: by which one others reach it, at which port, on which interface."""

import socket
from urllib.parse import urlsplit

import psutil

from ytrain_api.errors import SpecError, TransientError

HOW_WRITTEN = "write it as http://HOST:PORT, an IPv6 address in brackets"


def address_towards(url: str) -> str:
    """This machine's address as the launcher's network sees it; of IPv4 where the launcher has both.

    Raises:
        SpecError: the URL names no host.
        TransientError: there is no way to it now.
    """
    parts = urlsplit(url)
    if parts.hostname is None:
        raise SpecError(f"--launcher {url}: {HOW_WRITTEN}")
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)
    except OSError as error:
        found, failure = [], error
    for family, kind, _, _, there in sorted(found, key=lambda each: each[0] != socket.AF_INET):
        try:
            with socket.socket(family, kind) as probe:
                probe.connect(there)  # sends nothing
                return str(probe.getsockname()[0])
        except OSError as error:
            failure = error
    raise TransientError(f"--launcher {url}: there is no way to it ({failure}); or give this machine's own --address")


def free_port(address: str) -> int:
    """A port that nobody uses at an address of this machine."""
    family, kind, _, _, here = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.bind(here)
        return int(probe.getsockname()[1])


def interface(address: str) -> str | None:
    """The network interface that has this address, so that gloo need not trust the host's name; None: it is a name."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return str(name)
    return None
