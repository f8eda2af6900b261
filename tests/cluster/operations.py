"""What is done with a cluster that is up: look at it, load images, cut a node's cable and mend it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import network, state
from tests.cluster.conditions import is_ready
from tests.cluster.failures import ClusterError
from tests.cluster.images import as_archive, import_archive
from tests.cluster.kubectl import Kubectl
from tests.cluster.machines import Machine
from tests.cluster.network import NODES
from tests.cluster.state import State
from tests.cluster.two_nodes import is_whole, kubeconfig_of
from tests.cluster.waiting import wait_for

Say = Callable[[str], None]


def set_plugged(node: str, plugged: bool, say: Say, folder: Path = state.FOLDER) -> None:
    """Cut a node's cable, or mend it, and wait until the control plane has noticed."""
    known = require_up(folder)
    if node not in network.BY_NAME:
        raise ClusterError(f"there is no node {node!r}; the nodes are {' and '.join(network.BY_NAME)}")
    control_plane = Machine("control-plane", known.machines["control-plane"])
    network.set_cable(control_plane, node, "up" if plugged else "down")
    kubectl = Kubectl(kubeconfig_of(folder))
    wait_for(f"{node} to be {'Ready' if plugged else 'NotReady'}", lambda: is_ready(kubectl, node) is plugged)
    say(f"{node} is {'plugged in and Ready' if plugged else 'unplugged and NotReady'}")


def status(say: Say, folder: Path = state.FOLDER) -> bool:
    """Say what runs and what does not; true when all is well."""
    known = state.load(folder)
    if known is None:
        say("no cluster is up; make cluster-up starts one")
        return False
    for name, process in {**known.machines, **known.components}.items():
        say(f"{'running' if process.alive else 'ENDED':8} {name}")
    if known.machines and "control-plane" in known.machines and known.machines["control-plane"].alive:
        control_plane = Machine("control-plane", known.machines["control-plane"])
        for node in (node.name for node in NODES if node.name in known.machines):
            say(f"{'plugged' if network.cable_is_up(control_plane, node) else 'UNPLUGGED':9} {node}")
    whole = is_whole(known)
    if whole:
        say(Kubectl(kubeconfig_of(folder))("get", "nodes", "--output=wide").rstrip())
    else:
        say("the cluster is not whole; make cluster-up brings it up anew")
    say(f"kubeconfig {kubeconfig_of(folder)}\nlogs       {folder / 'logs'}")
    return whole


def load(image: str, say: Say, folder: Path = state.FOLDER) -> None:
    """Import an image into both nodes."""
    known = require_up(folder)
    with as_archive(image) as archive, ThreadPoolExecutor() as pool:
        machines = [Machine(node.name, known.machines[node.name]) for node in NODES]
        for machine, names in zip(machines, pool.map(lambda m: import_archive(m, archive), machines), strict=True):
            say(f"{machine.name} has {' '.join(names)}")


def require_up(folder: Path) -> State:
    """The record of a cluster that is up."""
    known = state.load(folder)
    if known is None or not known.complete:
        raise ClusterError("no cluster is up; make cluster-up starts one")
    return known
