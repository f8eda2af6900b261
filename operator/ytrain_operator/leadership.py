"""One of several operators works, the one that holds the Lease; the others wait for it to let go."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, V1Lease, V1ObjectMeta
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

LEASE = "ytrain-operator"
LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 15, 10, 2
ANSWER_SECONDS = 5.0
"""Longest wait for an answer; the client's own is 5 min, in which a leader would not notice that it leads no more."""


class _PatientLock(LeaseLock):
    """A lock whose API server may be away or silent: the client's own lets the connection's error end the election."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return False, ApiException(reason=f"no answer ({type(error).__name__})")

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        # The client's own asks for `pretty=True`, which the client's generated code refuses: it wants a string.
        lease = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.api_instance.create_namespaced_lease(namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool(await super().update(name, namespace, updated_record))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


async def lead(client: ApiClient, namespace: str, identity: str, work: Callable[[], Awaitable[None]]) -> bool:
    """Wait for the Lease, then do the work while it is held.

    Returns:
        Whether the work came to its own end; False if the Lease was lost, after which this process must end.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def leading() -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    async def stopped() -> None:
        """What follows the loss is the caller's."""

    lock = _PatientLock(LEASE, namespace, identity, client)
    election = asyncio.create_task(
        LeaderElection(
            Config(
                lock,
                lease_duration=LEASE_SECONDS,
                renew_deadline=RENEW_SECONDS,
                retry_period=RETRY_SECONDS,
                onstarted_leading=leading,
                onstopped_leading=stopped,
            )
        ).run()
    )
    try:
        await asyncio.wait([election, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            return True
        election.result()
        return False
    finally:
        election.cancel()
