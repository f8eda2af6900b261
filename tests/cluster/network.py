"""The cables: a bridge inside the control plane's machine, with the nodes and this host plugged in.

The host gets a single link, `ytrain0`. The addresses are from 198.18.0.0/15, which is set aside for tests, so that they
are nobody's LAN. No machine has a default route: traffic stays on these links.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.failures import ClusterError
from tests.cluster.machines import Machine

HOST_LINK = "ytrain0"
BRIDGE = "bridge0"
CONTROL_PLANE_IP = "198.18.0.1"
HOST_IP = "198.18.0.2"
PODS = "198.18.16.0/20"
SERVICES = "198.19.0.0/24"
API_SERVICE_IP = "198.19.0.1"
DNS_SERVICE_IP = "198.19.0.10"


@dataclass(frozen=True)
class NodeAddress:
    """Where a node and its pods are."""

    name: str
    ip: str
    pods: str


NODES = [NodeAddress("node-a", "198.18.0.11", "198.18.17.0/24"), NodeAddress("node-b", "198.18.0.12", "198.18.18.0/24")]
BY_NAME = {node.name: node for node in NODES}


def other_cluster(folder: Path) -> str | None:
    """The folder of another cluster that is up on this host."""
    alias = Path(f"/sys/class/net/{HOST_LINK}/ifalias")
    owner = alias.read_text().strip() if alias.exists() else str(folder)
    return owner if owner != str(folder) else None


def lay_host_cable(control_plane: Machine, folder: Path) -> None:
    """Make the bridge and plug this host in; the link's alias says whose it is."""
    control_plane.run("ip", "link", "add", BRIDGE, "type", "bridge")
    control_plane.run("ip", "address", "add", f"{CONTROL_PLANE_IP}/24", "dev", BRIDGE)
    control_plane.run("ip", "link", "set", BRIDGE, "up")
    pid = str(control_plane.first.pid)
    on_host("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", "host", "netns", pid)
    on_host("ip", "link", "set", HOST_LINK, "alias", str(folder))
    plug_in(control_plane, "host")
    on_host("ip", "address", "add", f"{HOST_IP}/24", "dev", HOST_LINK)
    on_host("ip", "link", "set", HOST_LINK, "up")


def lay_node_cable(control_plane: Machine, node: Machine) -> None:
    """Plug a node in."""
    address = BY_NAME[node.name]
    pid = str(node.first.pid)
    control_plane.run("ip", "link", "add", node.name, "type", "veth", "peer", "name", "eth0")
    # `netns PID` is looked up in the caller's own pid namespace, so the link is handed over from out here.
    subprocess.run(
        ["nsenter", f"--target={control_plane.first.pid}", "--net", "ip", "link", "set", "eth0", "netns", pid],
        check=True,
    )
    plug_in(control_plane, node.name)
    node.run("ip", "address", "add", f"{address.ip}/24", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")


def lay_routes(control_plane: Machine, nodes: dict[str, Machine]) -> None:
    """Pods are reached through their node, from everywhere; services, from outside, through the first node."""
    for address in NODES:
        via = ["ip", "route", "replace", address.pods, "via", address.ip]
        control_plane.run(*via)
        on_host(*via)
        for name, machine in nodes.items():
            if name != address.name:
                machine.run(*via)
    services = ["ip", "route", "replace", SERVICES, "via", NODES[0].ip]
    control_plane.run(*services)
    on_host(*services)


def plug_in(control_plane: Machine, link: str) -> None:
    """Connect one cable to the bridge."""
    control_plane.run("ip", "link", "set", link, "master", BRIDGE, "up")


def set_cable(control_plane: Machine, node: str, state: str) -> None:
    """Cut a node's cable (`down`) or mend it (`up`)."""
    control_plane.run("ip", "link", "set", node, state)


def cable_is_up(control_plane: Machine, node: str) -> bool:
    """Whether a node's cable is whole."""
    return ",UP" in control_plane.run("ip", "link", "show", node).partition(">")[0]


def on_host(*command: str) -> None:
    """Run a command of this host's network."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
