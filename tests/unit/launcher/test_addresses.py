"""Addresses of IPv4 and IPv6: what is listened at, where this machine is reached, by which interface."""

import asyncio
import socket

import psutil
import pytest

from ytrain.cli.distributed import read_listen
from ytrain.launcher.addresses import address_towards, free_port, interface
from ytrain.launcher.client import LauncherClient
from ytrain_api.errors import SpecError, TransientError

pytestmark = pytest.mark.unit

HERE = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
LOOPBACKS = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif("::1" not in HERE, reason="this machine has no IPv6")),
]


@pytest.mark.parametrize("address", LOOPBACKS)
def test_a_loopback_address_is_found_probed_and_known_to_its_interface(address: str) -> None:
    url = f"http://[{address}]:8750" if ":" in address else f"http://{address}:8750"
    assert address_towards(url) == address
    assert interface(address) == "lo"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, free_port(address)), family=family) as server:
        assert server.getsockname()[0] == address


def test_a_name_is_on_no_interface() -> None:
    assert interface("localhost") is None
    assert free_port("localhost") > 0


def test_of_a_launcher_that_has_both_the_older_family_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", 8750, 0, 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 8750)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert address_towards("http://launcher:8750") == "127.0.0.1"


def test_a_way_that_is_not_there_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TransientError, match=r"http://launcher:8750: .*Temporary failure.*--address"):
        address_towards("http://launcher:8750")


@pytest.mark.parametrize("url", ["launcher:8750", "http://:8750"])
def test_a_url_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="http://HOST:PORT"):
        address_towards(url)


@pytest.mark.parametrize("url", ["launcher", "launcher:8750", "http://:8750", "http://[::1"])
def test_a_worker_does_not_wait_for_a_launcher_whose_url_is_none(url: str) -> None:
    async def asked() -> None:
        async with LauncherClient(url, "0123456789abcdef") as client:
            await client.job()

    with pytest.raises(SpecError, match=r"--launcher .*http://HOST:PORT"):
        asyncio.run(asked())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (":8750", (None, 8750)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("launcher:8750", ("launcher", 8750)),
        ("[::1]:8750", ("::1", 8750)),
        ("[::]:8750", ("::", 8750)),
    ],
)
def test_where_to_listen(text: str, meant: tuple[str | None, int]) -> None:
    assert read_listen(text) == meant


@pytest.mark.parametrize("text", ["", "8750", "host:", "host:x", "::1:8750", "::1", "host:65536"])
def test_where_to_listen_cannot_be_guessed(text: str) -> None:
    with pytest.raises(SpecError, match=r"--listen .*: write it as HOST:PORT.* or \[::1\]:8750"):
        read_listen(text)
