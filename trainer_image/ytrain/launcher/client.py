"""An agent's way to a launcher on another machine, by HTTP."""

import base64
from types import TracebackType
from typing import TypeVar

import aiohttp
from pydantic import ValidationError

from ytrain.launcher.addresses import HOW_WRITTEN
from ytrain.launcher.coordinator import Refused
from ytrain_api import JobFile, parse_job
from ytrain_api.errors import SpecError, TransientError
from ytrain_api.protocol import Order, Report, SharedJob

T = TypeVar("T", Order, SharedJob)

ANSWER_SECONDS = 8.0
"""Longest wait for an answer; the launcher holds an exchange for one second."""


class LauncherClient:
    """Speaks to the launcher at `url`, such as http://trainer:8750, with the job's token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        )

    async def __aenter__(self) -> "LauncherClient":
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def exchange(self, report: Report) -> Order:
        """See `agent.Launcher`."""
        status, text = await self._ask("POST", "/v1/exchange", report.model_dump_json(by_alias=True))
        if status in (409, 410):
            raise Refused(text, final=status == 410)
        return self._parsed(Order, status, text)

    async def job(self) -> JobFile:
        """The job that the launcher serves.

        Raises:
            ConnectionError: it cannot be reached now.
            SpecError: its address is none, or it refuses the token.
        """
        shared = self._parsed(SharedJob, *await self._ask("GET", "/v1/job"))
        maps = {
            name: {key: base64.b64decode(value) for key, value in contents.items()}
            for name, contents in shared.config_maps.items()
        }
        return JobFile(parse_job(shared.job), maps)

    async def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        try:
            async with self._session.request(method, self._url + path, data=body) as response:
                text = await response.text()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):  # waiting for it would not help
            raise SpecError(f"--launcher {self._url}: {HOW_WRITTEN}") from None
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            raise ConnectionError(f"{self._url}: {error or type(error).__name__}") from None
        if response.status == 401:
            raise SpecError(f"{self._url} refuses the token; give the launcher's own with --token-file")
        if response.status in (429, 502, 503, 504):
            raise ConnectionError(f"{self._url}: {response.status} {response.reason}")
        return response.status, text

    def _parsed(self, kind: type[T], status: int, text: str) -> T:
        try:
            if status == 200:
                return kind.model_validate_json(text)
        except ValidationError:
            pass
        raise TransientError(f"{self._url} answered {status}, which is no launcher's answer: {text[:200]}")
