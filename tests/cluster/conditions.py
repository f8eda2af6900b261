"""Questions to a cluster, answered with yes or no, to wait for."""

from pathlib import Path

from tests.cluster.failures import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.machines import Machine


def is_ready(kubectl: Kubectl, node: str) -> bool:
    """Whether a node is there and Ready."""
    try:
        conditions = kubectl.get("node", node)["status"].get("conditions", [])
    except ClusterError:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def answers(machine: Machine, *command: str | Path) -> bool:
    """Whether a command succeeds on a machine."""
    try:
        machine.run(*command)
    except ClusterError:
        return False
    return True


def exists(kubectl: Kubectl, *what: str) -> bool:
    """Whether an object is there."""
    try:
        kubectl.get(*what)
    except ClusterError:
        return False
    return True
