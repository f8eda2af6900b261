"""What a pod may expect of a cluster: network, names, logs, limits, policy, volumes."""

import re
import ssl
import subprocess
import urllib.error
import urllib.request
from functools import partial
from typing import Any

import pytest
from tests.cluster.failures import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import RESTRICTED_POD, claim, headless_service, pod, probe, probe_spec

pytestmark = pytest.mark.e2e

NODES = ("node-a", "node-b")


def wait_for_pod(kubectl: Kubectl, name: str, phase: str) -> None:
    kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", f"pod/{name}", "--timeout=180s", seconds=240)


def wait_until_ready(kubectl: Kubectl, *names: str) -> None:
    kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=180s", seconds=240)


def test_pods_on_both_nodes_reach_each_other_by_headless_service_and_the_api_by_its_service(kubectl: Kubectl) -> None:
    kubectl.apply(
        headless_service("web", 8080),
        *(pod(f"on-{node}", serving(node), app="web") for node in NODES),
        *(pod_with_name(node) for node in NODES),
    )
    wait_until_ready(kubectl, *(f"on-{node}" for node in NODES), *(f"named-{node}" for node in NODES))
    for node, other in (NODES, NODES[::-1]):
        asked = ("exec", f"on-{node}", "--", "/probe")
        wait_for("the addresses of all that are ready", partial(finds, kubectl, asked, "web", 4))
        assert kubectl(*asked, "get", f"http://named-{other}.web:8080").strip() == f"probe named-{other}"
        own, foreign = f"/api/v1/namespaces/{kubectl.namespace}/pods", "/version"
        assert '"gitVersion": "v1.34.2"' in kubectl(*asked, "api", foreign)
        with pytest.raises(ClusterError, match="403 Forbidden"):  # the account has no rights
            kubectl(*asked, "api", own)


def pod_with_name(node: str) -> dict[str, object]:
    """A pod with a DNS name of its own below the service `web`."""
    spec = {**serving(node), "hostname": f"named-{node}", "subdomain": "web"}
    return pod(f"named-{node}", spec, app="web")


def serving(node: str) -> dict[str, Any]:
    """The spec of a pod that is Ready once it serves."""
    spec = probe_spec("serve", ":8080", node=node)
    spec["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    return spec


def finds(kubectl: Kubectl, asked: tuple[str, ...], name: str, count: int) -> bool:
    """Whether a pod gets so many addresses for a name; none is an error."""
    try:
        return len(kubectl(*asked, "lookup", name).split()) == count
    except ClusterError:
        return False


def test_logs_exec_and_port_forward(kubectl: Kubectl) -> None:
    kubectl.apply(*(pod(f"web-{node}", serving(node)) for node in NODES))
    wait_until_ready(kubectl, *(f"web-{node}" for node in NODES))
    for name in (f"web-{node}" for node in NODES):
        assert kubectl("logs", name) == "serving :8080\n"
        assert kubectl("exec", name, "--", "/probe", "get", "http://localhost:8080") == f"probe {name}\n"
        with subprocess.Popen(
            kubectl.command("port-forward", name, ":8080"), stdout=subprocess.PIPE, text=True
        ) as tunnel:
            try:
                assert tunnel.stdout is not None
                at = re.search(r"(127\.0\.0\.1:\d+) ->", tunnel.stdout.readline())
                assert at is not None
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{at[1]}") as answer:
                    assert answer.read().decode() == f"probe {name}\n"
            finally:
                tunnel.kill()


def test_a_memory_limit_kills(kubectl: Kubectl) -> None:
    kubectl.apply(pod("greedy", probe_spec("eat", "200", memory="64Mi")), pod("modest", probe_spec("eat", "20")))
    wait_for_pod(kubectl, "greedy", "Failed")
    ended = kubectl.get("pod", "greedy")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    wait_for_pod(kubectl, "modest", "Running")


def test_pod_security_rejects_a_root_pod(kubectl: Kubectl) -> None:
    spec = {**probe_spec("sleep"), "securityContext": {**RESTRICTED_POD, "runAsNonRoot": False, "runAsUser": 0}}
    with pytest.raises(ClusterError, match=r'violates PodSecurity "restricted:latest".*runAsNonRoot'):
        kubectl.apply(pod("root", spec))


def test_who_shows_no_certificate_or_token_gets_nothing(kubectl: Kubectl) -> None:
    server = kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}")
    anybody = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.build_opener(urllib.request.ProxyHandler({}), anybody).open(f"{server}/api", timeout=60)


def test_a_shared_volume_is_seen_from_both_nodes_by_pods_that_are_not_root(kubectl: Kubectl) -> None:
    kubectl.apply(claim("shared", "shared", "ReadWriteMany"))
    kubectl.apply(probe("writer", "write", "/data/note", "hello", node="node-a", claim="shared"))
    wait_for_pod(kubectl, "writer", "Succeeded")
    kubectl.apply(probe("reader", "read", "/data/note", node="node-b", claim="shared"))
    wait_for_pod(kubectl, "reader", "Succeeded")
    assert kubectl("logs", "reader") == "hello\n"


def test_the_default_storage_class_ties_a_volume_to_the_node_of_its_pod(kubectl: Kubectl) -> None:
    kubectl.apply(claim("own", None, "ReadWriteOnce"))
    kubectl.apply(probe("first", "write", "/data/note", "mine", node="node-b", claim="own"))
    wait_for_pod(kubectl, "first", "Succeeded")
    kubectl.apply(probe("second", "read", "/data/note", claim="own"))
    wait_for_pod(kubectl, "second", "Succeeded")
    assert kubectl("logs", "second") == "mine\n"
    assert kubectl.get("pod", "second")["spec"]["nodeName"] == "node-b"
