"""A namespace of its own for each test, on the API server with simulated nodes that tests/cluster brings up."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import client
from live import InNamespace, Namespace, connect
from tests.cluster.kubectl import Kubectl

CRD = Path("crds/ytrainjobs.ytrain.io.yaml")
CLAIMS = ("models", "data", "work")


@pytest.fixture(scope="session")
def kubeconfig(api_cluster: Kubectl) -> str:
    """The cluster's kubeconfig, with our CRD in the cluster."""
    asyncio.run(_install_crd(str(api_cluster.kubeconfig)))
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
