"""Scores by an HTTP endpoint: POST {prompt, answer, record}, answered by {reward}.

Asked again is only what the endpoint certainly did not score: it could not be reached, or said that it is busy.
"""

import asyncio
import json
from collections.abc import Sequence

import aiohttp

from ytrain.rl.rewards.sample import Failure, Sample, written
from ytrain.rl.rewards.worker import LARGEST_REWARD

IN_FLIGHT = 32
LARGEST_ANSWER = 1 << 16
"""Bytes; more is no reward."""

BUSY = (429, 503)
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt."""


class _NotScored(Exception):
    """The endpoint has certainly not scored the sample."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class HttpScorer:
    """Asks the endpoint at `url`; a request takes at most `seconds`."""

    at_once = IN_FLIGHT

    def __init__(self, url: str, seconds: float, waits: Sequence[float] = WAITS) -> None:
        self._url, self._seconds, self._waits = url, seconds, waits
        # A connection that the endpoint closed between two steps would cost a sample: none is kept.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=IN_FLIGHT, force_close=True),
            timeout=aiohttp.ClientTimeout(total=seconds),
            headers={"Content-Type": "application/json"},
        )

    async def score(self, sample: Sample) -> float | Failure:
        """See `Scorer`."""
        body = written(sample)
        if isinstance(body, Failure):
            return body
        for wait in (*self._waits, None):
            try:
                return await self._ask(body)
            except _NotScored as ended:
                if wait is None:
                    return ended.failure
                await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns")

    async def _ask(self, body: bytes) -> float | Failure:
        """One request.

        Raises:
            _NotScored: it may be sent again.
        """
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if response.status in BUSY:
                    raise _NotScored(Failure(f"the endpoint answered {response.status}"))
                content = b""
                while len(content) <= LARGEST_ANSWER and (part := await response.content.read(LARGEST_ANSWER)):
                    content += part
        except TimeoutError:
            return Failure(f"the endpoint took longer than {self._seconds:g} s")
        except aiohttp.ClientConnectorError as error:
            raise _NotScored(Failure("the endpoint cannot be reached", str(error)[:300])) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Failure(f"the endpoint broke off ({type(error).__name__})", str(error)[:300])
        if 300 <= response.status < 400:
            goal = response.headers.get("Location", "nowhere")[:300]
            return Failure(f"the endpoint answered {response.status}", f"redirects are not followed: {goal}")
        if response.status != 200:
            return Failure(f"the endpoint answered {response.status}", content[:300].decode(errors="replace"))
        if len(content) > LARGEST_ANSWER:
            return Failure(f"the endpoint answered more than {LARGEST_ANSWER} bytes")
        return _reward(content)

    async def close(self) -> None:
        """See `Scorer`."""
        await self._session.close()


def _reward(content: bytes) -> float | Failure:
    shown = content[:300].decode(errors="replace")
    try:
        answer = json.loads(content)
        value = answer["reward"] if isinstance(answer, dict) and "reward" in answer else None
        reward = float(value) if isinstance(value, int | float) else None
    except (ValueError, OverflowError, RecursionError):
        return Failure("the endpoint's answer is no JSON with a finite reward", shown)
    if reward is None:
        return Failure("the endpoint's answer has no number as reward", shown)
    if reward - reward != 0:
        return Failure(f"the endpoint's reward is {reward}, and not a finite number", shown)
    if abs(reward) > LARGEST_REWARD:
        return Failure(f"the endpoint's reward is {reward:g}, beyond the {LARGEST_REWARD:g} that can be learned from")
    return reward
