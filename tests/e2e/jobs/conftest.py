"""The chart on two nodes, and a namespace where the small model lies on a volume and chats in a ConfigMap."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs.job_on_cluster import FAST_LIFECYCLE, LIMIT, Job, shell
from tests.cluster import product, state, two_nodes
from tests.cluster.fixtures import new_namespace
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import claim
from tests.conftest import write_chats


@pytest.fixture(scope="session")
def images(cluster: Kubectl) -> dict[str, str]:
    """The names of the operator's and the trainer's image, which both nodes have."""
    if cluster.kubeconfig != two_nodes.kubeconfig_of():
        pytest.skip("images are loaded into nodes of our own cluster only")
    return product.load_images(print)


@pytest.fixture(scope="session")
def operator(cluster: Kubectl, images: dict[str, str]) -> Iterator[Kubectl]:
    """The chart, installed; kubectl in its namespace."""
    product.install(cluster, images, *FAST_LIFECYCLE)
    yield Kubectl(cluster.kubeconfig, product.NAMESPACE)
    if state.load() is not None:  # tests that take the cluster down come last
        product.uninstall(cluster)
        cluster("delete", "namespace", product.NAMESPACE, f"--timeout={LIMIT:.0f}s", seconds=LIMIT)


@pytest.fixture(scope="session")
def team(
    operator: Kubectl, cluster: Kubectl, images: dict[str, str], model_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kubectl]:  # fmt: skip
    """A team's namespace, with the small model on the claim `models`."""
    folder = tmp_path_factory.mktemp("chats")
    write_chats(folder / "train.jsonl", 20)
    with new_namespace(cluster) as within:
        within("create", "configmap", "chats", f"--from-file={folder / 'train.jsonl'}")
        within.apply(claim("models", "shared", "ReadWriteMany"))
        with shell(within, images["trainer"], "models") as pod:
            product.copy_in(within, pod, model_folder.parent, ["tiny"], "/claims/models")
        yield within


def _usable(cluster: Kubectl) -> bool:
    """Whether pods may go to either node: what a test did to one may show for some seconds more."""
    nodes = cluster.get("nodes")["items"]
    ready = [each["status"] for node in nodes for each in node["status"]["conditions"] if each["type"] == "Ready"]
    return ready == ["True", "True"] and not any(node["spec"].get("taints") for node in nodes)


@pytest.fixture
def job(team: Kubectl, cluster: Kubectl, request: pytest.FixtureRequest) -> Iterator[Job]:
    """A job of the test's own name, not applied yet."""
    wait_for("two nodes without taints", lambda: _usable(cluster), seconds=LIMIT)
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    made = Job(team, words[:40].strip("-"))
    yield made
    made.delete()
