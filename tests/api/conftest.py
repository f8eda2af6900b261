"""A namespace of its own for each test, on the API server that tests/cluster brings up.

With YTRAIN_API_KUBECONFIG another one is taken, whose nodes are simulated too.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import client
from live import InNamespace, Namespace, connect
from tests.cluster.api_tier import api_cluster

CRD = Path("crds/ytrainjobs.ytrain.io.yaml")
CLAIMS = ("models", "data", "work")


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    """The cluster's kubeconfig, with our CRD in the cluster."""
    with contextlib.ExitStack() as stack:
        path = os.environ.get("YTRAIN_API_KUBECONFIG") or str(stack.enter_context(api_cluster(print)).kubeconfig)
        asyncio.run(_install_crd(path))
        yield path


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


async def _install_crd(kubeconfig: str) -> None:
    connection = await connect(kubeconfig)
    async with connection:
        extensions = client.ApiextensionsV1Api(connection)
        body = yaml.safe_load(CRD.read_text())
        name = body["metadata"]["name"]
        await extensions.patch_custom_resource_definition(
            name, body, field_manager="tests", force=True, _content_type="application/apply-patch+yaml"
        )
        while True:
            found = await extensions.read_custom_resource_definition(name)
            conditions = {each.type: each.status for each in found.status.conditions or ()}
            if conditions.get("Established") == "True":
                return
            await asyncio.sleep(0.05)
