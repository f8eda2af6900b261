"""The chart on two nodes, and a namespace where the small model lies on a volume and chats in a ConfigMap."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs.job_on_cluster import FAST_LIFECYCLE, LIMIT, SHARED_CLASS, Job, shell
from tests.cluster import product, state, two_nodes
from tests.cluster.fixtures import new_namespace
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import claim
from tests.conftest import write_chats


def _is_ours(cluster: Kubectl) -> bool:
    return cluster.kubeconfig == two_nodes.kubeconfig_of()


@pytest.fixture(scope="session")
def images(cluster: Kubectl) -> dict[str, str]:
    """The names of the operator's and the trainer's image, which all nodes have."""
    if _is_ours(cluster):
        return product.load_images(print)
    variables = {target: f"YTRAIN_E2E_{target.upper()}_IMAGE" for target in ("operator", "trainer")}
    if missing := [name for name in variables.values() if not os.environ.get(name)]:
        pytest.skip(f"the nodes of another cluster need images: load them and set {' and '.join(missing)}")
    return {target: os.environ[name] for target, name in variables.items()}


@pytest.fixture
def own_nodes(cluster: Kubectl) -> None:
    """For tests that pull a node's cable or stop the API server."""
    if not _is_ours(cluster):
        pytest.skip("another cluster is used: its nodes and its API server are not ours to stop")


@pytest.fixture(scope="session")
def operator(cluster: Kubectl, images: dict[str, str]) -> Iterator[Kubectl]:
    """The chart, installed; kubectl in its namespace."""
    if not _is_ours(cluster) and "ytrainjobs" in cluster("get", "customresourcedefinitions"):
        pytest.fail("this cluster has YTrainJobs already, and these tests remove the resource at their end")
    product.install(cluster, images, *FAST_LIFECYCLE)
    yield Kubectl(cluster.kubeconfig, product.NAMESPACE)
    if not _is_ours(cluster) or state.load() is not None:  # tests that take the cluster down come last
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
        within.apply(claim("models", SHARED_CLASS, "ReadWriteMany"))
        with shell(within, images["trainer"], "models") as pod:
            product.copy_in(within, pod, model_folder.parent, ["tiny"], "/claims/models")
        yield within


def _usable(cluster: Kubectl) -> bool:
    """Whether pods may go to two nodes: what a test did to one may show for some seconds more."""
    nodes = [node for node in cluster.get("nodes")["items"] if not node["spec"].get("taints")]
    ready = [each["status"] for node in nodes for each in node["status"]["conditions"] if each["type"] == "Ready"]
    return ready.count("True") >= 2


@pytest.fixture
def job(team: Kubectl, cluster: Kubectl, request: pytest.FixtureRequest) -> Iterator[Job]:
    """A job of the test's own name, not applied yet."""
    wait_for("two nodes without taints", lambda: _usable(cluster), seconds=LIMIT)
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    made = Job(team, words[:40].strip("-"))
    yield made
    made.delete()
