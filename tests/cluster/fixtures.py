"""pytest fixtures: the two tiers, each brought up once for a whole session, and a namespace for each test.

YTRAIN_E2E_KUBECONFIG names another cluster to use in place of the two nodes; the simulated ones are always our own,
since only they play pods by rule. A two-node cluster that was up before the tests is used as it is and stays up.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import api_tier, state, teardown, two_nodes
from tests.cluster.__main__ import say
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from xdist.scheduler import LoadScopeScheduling


def other_cluster() -> Kubectl | None:
    """The cluster that the environment names."""
    named = os.environ.get("YTRAIN_E2E_KUBECONFIG")
    return Kubectl(Path(named)) if named else None


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[Kubectl]:
    """An API server with simulated nodes; `simulated.yaml` says how pods run and end."""
    with api_tier.api_cluster(say) as kubectl:
        yield kubectl


@pytest.fixture(scope="session")
def found_up() -> bool:
    """Whether two nodes were up before the tests."""
    known = state.load()
    return known is not None and two_nodes.is_whole(known)


@pytest.fixture(scope="session")
def cluster(found_up: bool) -> Iterator[Kubectl]:
    """Two nodes that run containers, or another cluster."""
    if (other := other_cluster()) is not None:
        yield other
        return
    if os.geteuid() != 0:
        pytest.skip("a cluster with nodes needs root, or YTRAIN_E2E_KUBECONFIG")
    try:
        yield Kubectl(two_nodes.up(say))
    finally:
        if not found_up:
            teardown.down(say)


# By what a test waits for, in the order in which that is made.
LAST = ["helm", "api_cluster", "image", "cluster", "operator", "cluster_to_take_down"]


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Tests without cluster and image run first, while these are built; those that take a cluster down run last."""

    def turn(item: pytest.Function) -> int:
        return max((1 + LAST.index(name) for name in item.fixturenames if name in LAST), default=0)

    items.sort(key=turn)


TOGETHER = {
    "tests/api/": "simulated",
    "tests/image/": "nodes",
    "tests/e2e/cluster/": "nodes",
    "tests/e2e/jobs/": "nodes",
}
"""Folders whose tests run in one process, because they share a cluster."""


class Together(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Hands out tests one by one, those of a cluster to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return next((group for folder, group in TOGETHER.items() if nodeid.startswith(folder)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """pytest-xdist's own groups are not known to pytest 9.2."""
    return Together(config, log)


@contextmanager
def new_namespace(kubectl: Kubectl, pod_security: str = "restricted") -> Iterator[Kubectl]:
    """A namespace that enforces a Pod Security level and is deleted at the end."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": pod_security}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    within = Kubectl(kubectl.kubeconfig, name)
    try:
        # Pods are refused until the controllers have made the account.
        wait_for(f"the service account of {name}", lambda: "default" in within("get", "serviceaccounts"))
        yield within
    finally:
        if kubectl.kubeconfig.is_file():  # else the cluster was taken down, and the namespace with it
            kubectl("delete", "namespace", name, "--wait=false")
