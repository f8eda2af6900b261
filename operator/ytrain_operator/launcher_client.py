"""Asks launchers how far they are. In a launcher's pod runs what its job's author wants, so nothing is taken on trust:
an answer has a largest size, is not unpacked, and leads nowhere else.
"""

from types import TracebackType

import aiohttp
from pydantic import ValidationError

from ytrain_api.protocol import PORT, LauncherStatus

SECONDS = 3.0
MOST_BYTES = 1 << 20
"""Of an answer; a long one has about 50 kB."""


class LauncherClient:
    """One session for all launchers."""

    async def __aenter__(self) -> "LauncherClient":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS), auto_decompress=False)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def ask(self, address: str, token: str) -> LauncherStatus | None:
        """The launcher's answer, without what this operator does not know; None if there is none that can be read."""
        host = f"[{address}]" if ":" in address else address
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._session.get(
                f"http://{host}:{PORT}/v1/progress", headers=headers, allow_redirects=False
            ) as response:
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MOST_BYTES:
                        return None
                return LauncherStatus.model_validate_json(body, extra="ignore") if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
            return None
