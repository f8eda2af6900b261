"""The second tier: API server, controllers, scheduler and kwok, whose nodes and pods are only played.

It is up in seconds, needs no root, and lives as long as the process that started it: the kernel ends its parts when
their parent dies, so nothing is on record and nothing is left, however that process ends. Several can run at once.
"""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.cluster import control_plane as plane
from tests.cluster import programs
from tests.cluster.certificates import CONTROL_PLANE, Identity, issue, write_kubeconfig
from tests.cluster.conditions import is_ready
from tests.cluster.control_plane import Component, Site
from tests.cluster.kubectl import Kubectl
from tests.cluster.processes import ENVIRONMENT
from tests.cluster.running import last_words
from tests.cluster.waiting import wait_for
from tests.ports import held_port

NEEDED = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok"]
STAGES = Path(__file__).with_name("simulated.yaml")
LOOPBACK = "127.0.0.1"
PODS_CIDR = "198.18.128.0/17"
"""Addresses of simulated pods; nothing answers there."""


def simulated_node(name: str, **extended: str) -> dict[str, object]:
    """A node that kwok plays; `extended` adds resources, e.g. {"nvidia.com/gpu": "8"}."""
    resources = {"cpu": "64", "memory": "512Gi", "pods": "1000", "ephemeral-storage": "1Ti", **extended}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "simulated"}},
        "status": {"capacity": resources, "allocatable": resources},
    }


@contextlib.contextmanager
def api_cluster(say: Callable[[str], None], nodes: int = 2, *, scheduler: bool = True) -> Iterator[Kubectl]:
    """An API server with simulated nodes, for as long as the context lasts; without a scheduler no pod gets a node."""
    programs.build(NEEDED, say)
    folder = Path(tempfile.mkdtemp(prefix="ytrain-api-"))
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def trouble() -> str:
        ended = (name for name, process in processes.items() if process.poll() is not None)
        return "\n".join(last_words(name, processes[name].returncode, folder / f"{name}.log") for name in ended)

    ports = contextlib.ExitStack()
    try:
        site = make_site(folder, tuple(ports.enter_context(held_port(LOOPBACK)) for _ in range(3)))
        for part in (plane.etcd(site), plane.api_server(site)):
            processes[part.name] = start(part, folder)
        kubectl = Kubectl(site.kubeconfig("admin"))
        wait_for("the API server", kubectl.ready, trouble=trouble, every=0.1)
        controllers = [plane.controller_manager(site), *([plane.scheduler(site)] if scheduler else [])]
        for part in (*controllers, kwok(site)):
            processes[part.name] = start(part, folder)
        kubectl.apply(*(simulated_node(f"simulated-{i}", **{"nvidia.com/gpu": "8"}) for i in range(nodes)))
        for i in range(nodes):
            ready = partial(is_ready, kubectl, f"simulated-{i}")
            wait_for(f"simulated-{i} to be Ready", ready, trouble=trouble)
        wait_for("the default service account", lambda: "default" in kubectl("get", "serviceaccounts"), trouble=trouble)
        yield kubectl
    finally:
        for process in reversed(processes.values()):
            process.kill()
            process.wait()
        ports.close()
        shutil.rmtree(folder)


def make_site(folder: Path, ports: tuple[int, ...]) -> Site:
    """Certificates, and addresses on the loopback device."""
    pki = folder / "pki"
    issue(pki, [*CONTROL_PLANE, Identity("kube-apiserver", "kube-apiserver", "", (LOOPBACK, "localhost"))])
    api_port, etcd_port, peer_port = ports
    # A loopback address may be in no EndpointSlice, and there are no pods that would look for one.
    flags = ("--endpoint-reconciler-type=none",)
    site = Site(
        folder, pki, LOOPBACK, api_port, etcd_port, peer_port, "198.19.0.0/24", flags,
        # kwok renews the nodes' leases every 10 s; they are never lost, however busy this machine is.
        node_grace_seconds=3600,
    )  # fmt: skip
    for identity in CONTROL_PLANE:
        write_kubeconfig(pki, identity.name, site.server)
    return site


def kwok(site: Site) -> Component:
    """The simulator of nodes and pods; it reads the stages from a configuration file."""
    flags: dict[str, str | Path] = {
        "--kubeconfig": site.kubeconfig("admin"),
        "--config": STAGES,
        "--manage-all-nodes": "true",
        "--cidr": PODS_CIDR,
        "--node-lease-duration-seconds": "40",
    }
    return plane.component("kwok", flags)


def start(part: Component, folder: Path) -> subprocess.Popen[bytes]:
    """Start a component that the kernel ends together with this process."""
    with (folder / f"{part.name}.log").open("wb") as log:
        command = ["setpriv", "--pdeathsig", "KILL", "--", *part.command]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**ENVIRONMENT, "HOME": str(folder)},
            cwd=folder, start_new_session=True,
        )  # fmt: skip


def serve(say: Callable[[str], None]) -> None:
    """Run one until this process is interrupted or told to end."""
    with api_cluster(say) as kubectl:
        print(f"export KUBECONFIG={kubectl.kubeconfig}", flush=True)
        say("running until Ctrl-C")
        ended = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ended)
        signal.sigwait(ended)
