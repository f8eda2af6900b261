"""The line between an operator and its API server, which a test can cut, or hold so that nothing comes through."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from tests.ports import held_port


class Cable:
    """A listener that passes bytes on to the API server."""

    def __init__(self, kubeconfig: str, port: int) -> None:
        self._config = yaml.safe_load(Path(kubeconfig).read_text())
        self._cluster = self._config["clusters"][0]["cluster"]
        server = urlsplit(self._cluster["server"])
        self._target = server.hostname, server.port
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self._port = port

    def kubeconfig(self, folder: Path) -> str:
        """A kubeconfig whose server is reached through this cable."""
        self._cluster["server"] = f"https://127.0.0.1:{self._port}"
        path = folder / "through-cable.kubeconfig"
        path.write_text(yaml.safe_dump(self._config))
        return str(path)

    async def plug(self) -> None:
        """Let connections come."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """End all connections and refuse new ones."""
        assert self._listener is not None
        self._listener.close()
        for end in list(self._ends):
            end.transport.abort()

    def hold(self) -> None:
        """Keep connections, and everything that is sent on them."""
        self._flows.clear()

    def let_go(self) -> None:
        """Deliver what was held, and what follows."""
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._ends |= {writer, back}
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        self._ends -= {writer, back}

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def plugged(kubeconfig: str) -> AsyncIterator[Cable]:
    """A cable for as long as the context lasts."""
    with held_port() as port:
        cable = Cable(kubeconfig, port)
        await cable.plug()
        try:
            yield cable
        finally:
            cable.let_go()
            await cable.cut()
