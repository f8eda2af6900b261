"""Bringing up the first tier: a control plane and two nodes."""

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cluster import cgroups, network, nodes, objects, packages, programs, state
from tests.cluster import control_plane as plane
from tests.cluster.certificates import CONTROL_PLANE, Identity, issue, write_kubeconfig
from tests.cluster.conditions import answers, exists, is_ready
from tests.cluster.control_plane import Site
from tests.cluster.failures import ClusterError
from tests.cluster.images import import_archive
from tests.cluster.kubectl import Kubectl
from tests.cluster.machines import Machine, start_machine
from tests.cluster.network import NODES
from tests.cluster.oci_archive import PAUSE, write_archive
from tests.cluster.processes import ProcessId
from tests.cluster.running import Running
from tests.cluster.state import State
from tests.cluster.teardown import KERNEL_SETTINGS, remove
from tests.cluster.waiting import wait_for

Say = Callable[[str], None]

NEEDED = [program.name for program in programs.PROGRAMS if program.name not in ("kwok", "helm")]


def kubeconfig_of(folder: Path = state.FOLDER) -> Path:
    """The administrator's kubeconfig."""
    return folder / "pki" / "admin.kubeconfig"


def up(say: Say, folder: Path = state.FOLDER) -> Path:
    """Bring the cluster up unless it is up, and return the kubeconfig."""
    packages.require_root()
    programs.build(NEEDED, say)
    packages.install(say)
    with state.locked(folder):
        if (other := network.other_cluster(folder)) is not None:
            raise ClusterError(
                f"a cluster is already up, in {other}; use it, or take it down first: "
                f"YTRAIN_CLUSTER_FOLDER={other} make cluster-down"
            )
        known = state.load(folder)
        if known and is_whole(known):
            say("the cluster is up already")
            return kubeconfig_of(folder)
        if known:
            say("what is left of a cluster that is not whole is taken down first")
            remove(known)
        started = time.monotonic()
        bring_up(State(folder), say)
        say(f"the cluster is up after {time.monotonic() - started:.0f} s")
        return kubeconfig_of(folder)


def is_whole(known: State) -> bool:
    """Whether everything that `up` started still runs and the API server answers."""
    processes = [*known.machines.values(), *known.components.values()]
    return known.complete and all(p.alive for p in processes) and Kubectl(kubeconfig_of(known.folder)).ready()


def bring_up(record: State, say: Say) -> None:
    """Make everything, in an order in which each part finds what it needs."""
    folder = record.folder
    logs = folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    record.kernel_settings = {name: Path("/proc/sys", name).read_text().strip() for name in KERNEL_SETTINGS}
    record.save()
    site = make_site(folder)
    running = Running(record, logs)

    control_plane = start_recorded("control-plane", record)
    network.lay_host_cable(control_plane, folder)
    for part in (plane.etcd(site), plane.api_server(site)):
        running.start(control_plane, part)
    machines: dict[str, Machine] = {}
    say("starting the control plane and containerd on both nodes")
    pause = write_archive(folder / "pause.tar", PAUSE, "pause")
    parts = {node.name: nodes.components(node, site.pki, prepare(folder, node.name)) for node in NODES}
    for node in NODES:
        machines[node.name] = start_recorded(node.name, record)
        network.lay_node_cable(control_plane, machines[node.name])
        cgroups.make(node.name)
        running.start(machines[node.name], parts[node.name][0])
    network.lay_routes(control_plane, machines)

    kubectl = Kubectl(kubeconfig_of(folder))
    wait_for("the API server", kubectl.ready, trouble=running.trouble)
    kubectl.apply(*objects.ROLES)
    for make in (plane.controller_manager, plane.scheduler):
        running.start(control_plane, make(site))
    running.start(control_plane, plane.dns(site))
    running.start(control_plane, plane.volumes(site, prepare(folder, "volumes")))
    for machine in machines.values():
        runtime = partial(answers, machine, "ctr", "version")
        wait_for(f"containerd on {machine.name}", runtime, trouble=running.trouble)
        import_archive(machine, pause)
        for part in parts[machine.name][1:]:
            running.start(machine, part)
    kubectl.apply(*objects.STORAGE, *objects.DNS)
    say("waiting for the nodes")
    wait_until_usable(kubectl, control_plane, machines, running)
    record.complete = True
    record.save()


def wait_until_usable(kubectl: Kubectl, control_plane: Machine, machines: dict[str, Machine], running: Running) -> None:
    """Nodes ready, services translated, names answered, and pods may be created."""
    probe = programs.path_of("probe")
    for name, machine in machines.items():
        wait_for(f"{name} to be Ready", partial(is_ready, kubectl, name), trouble=running.trouble)
        translated = partial(answers, machine, probe, "get", "http://127.0.0.1:10256/healthz")
        wait_for(f"kube-proxy on {name}", translated, trouble=running.trouble)
    named = partial(answers, control_plane, probe, "get", "http://127.0.0.1:8181/ready")
    wait_for("cluster DNS", named, trouble=running.trouble)
    wait_for("the default service account", partial(exists, kubectl, "serviceaccount", "default"))


def make_site(folder: Path) -> Site:
    """Certificates and kubeconfigs of everybody, and the control plane's addresses."""
    pki = folder / "pki"
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    server = Identity(
        "kube-apiserver", "kube-apiserver", "", (network.CONTROL_PLANE_IP, network.API_SERVICE_IP, *names)
    )
    kubelets = [Identity(node.name, f"system:node:{node.name}", "system:nodes", (node.name, node.ip)) for node in NODES]
    issue(pki, [*CONTROL_PLANE, server, *kubelets])
    lib = prepare(folder, "control-plane")
    site = Site(lib, pki, network.CONTROL_PLANE_IP, 6443, 2379, 2380, network.SERVICES)
    for identity in (*CONTROL_PLANE, *kubelets):
        write_kubeconfig(pki, identity.name, site.server)
    return site


def start_recorded(name: str, record: State) -> Machine:
    """Start a machine that is on record before it runs anything."""

    def note(first: ProcessId) -> None:
        record.machines[name] = first
        record.save()

    return start_machine(name, prepare(record.folder, name), note)


def prepare(folder: Path, name: str) -> Path:
    """A folder of the state folder."""
    made = folder / name
    made.mkdir(parents=True, exist_ok=True)
    return made
