"""The probe's image in the cluster, and a namespace for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import operations, two_nodes
from tests.cluster.fixtures import new_namespace
from tests.cluster.kubectl import Kubectl
from tests.cluster.oci_archive import PROBE, write_archive


@pytest.fixture(scope="session")
def with_probe(cluster: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """The two-node cluster with the image of `probe`; these tests are about our own cluster, so no other will do."""
    if cluster.kubeconfig != two_nodes.kubeconfig_of():
        pytest.skip("another cluster is used: these are tests of our own")
    archive: Path = write_archive(tmp_path_factory.mktemp("image") / "probe.tar", PROBE, "probe")
    operations.load(str(archive), print)
    return cluster


@pytest.fixture
def kubectl(with_probe: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own, where Pod Security is `restricted`."""
    with new_namespace(with_probe) as within:
        yield within
