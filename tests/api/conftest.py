"""A namespace of its own for each test, on the API server with simulated nodes that tests/cluster brings up."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from live import CLAIMS, InNamespace, Namespace, connect, install_crd
from tests.cluster.kubectl import Kubectl


@pytest.fixture(scope="session")
def kubeconfig(api_cluster: Kubectl) -> str:
    """The cluster's kubeconfig, with our CRD in the cluster."""
    asyncio.run(install_crd(str(api_cluster.kubeconfig)))
    return str(api_cluster.kubeconfig)


@pytest.fixture
def in_namespace(kubeconfig: str) -> InNamespace:
    """Runs a coroutine function with a new namespace, whose pods must pass Pod Security `restricted`."""

    def run(test: Callable[[Namespace], Awaitable[None]]) -> None:
        asyncio.run(_in_namespace(kubeconfig, test))

    return run


async def _in_namespace(kubeconfig: str, test: Callable[[Namespace], Awaitable[None]]) -> None:
    connection = await connect(kubeconfig)
    async with connection:
        namespace = Namespace(connection, f"test-{uuid.uuid4().hex[:8]}")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"metadata": {"name": namespace.name, "labels": labels}}
        await namespace.core.create_namespace(body)
        try:
            for claim in CLAIMS:
                await namespace.make_volume(claim)
            await test(namespace)
        finally:
            await namespace.core.delete_namespace(namespace.name)
            for claim in CLAIMS:
                await namespace.delete_volume(claim)
