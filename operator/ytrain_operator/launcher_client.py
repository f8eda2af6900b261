"""Asks launchers how far they are."""

from types import TracebackType

import aiohttp
from pydantic import ValidationError

from ytrain_api.protocol import PORT, LauncherStatus

SECONDS = 3.0


class LauncherClient:
    """One session for all launchers."""

    async def __aenter__(self) -> "LauncherClient":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def ask(self, address: str, token: str) -> LauncherStatus | None:
        """The launcher's answer; None if there is none that can be read."""
        host = f"[{address}]" if ":" in address else address
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._session.get(f"http://{host}:{PORT}/v1/progress", headers=headers) as response:
                text = await response.text()
                return LauncherStatus.model_validate_json(text) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, UnicodeDecodeError):
            return None
