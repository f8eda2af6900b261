"""A node whose network cable is cut, and mended."""

import pytest
from tests.cluster import operations
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import deployment, probe_spec

pytestmark = pytest.mark.e2e


def test_pods_of_an_unplugged_node_are_replaced_and_end_once_it_is_plugged_in(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("web", probe_spec("sleep")))
    kubectl("rollout", "status", "deployment/web", "--timeout=180s", seconds=240)
    [first] = kubectl.get("pods")["items"]
    node = first["spec"]["nodeName"]

    def replaced() -> bool:
        pods = [pod for pod in kubectl.get("pods")["items"] if pod["metadata"]["uid"] != first["metadata"]["uid"]]
        return any(pod["spec"].get("nodeName") != node and pod["status"]["phase"] == "Running" for pod in pods)

    operations.set_plugged(node, False, print)
    try:
        wait_for("a replacement on the other node", replaced)
        assert "deletionTimestamp" in kubectl.get("pod", first["metadata"]["name"])["metadata"]
    finally:
        operations.set_plugged(node, True, print)
    kubectl("wait", "--for=delete", f"pod/{first['metadata']['name']}", "--timeout=180s", seconds=240)
