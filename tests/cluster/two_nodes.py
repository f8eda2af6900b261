"""The first tier: a control plane and two nodes, brought up and taken down."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import cgroups, network, nodes, objects, packages, programs, state
from tests.cluster import control_plane as plane
from tests.cluster.certificates import CONTROL_PLANE, Identity, issue, write_kubeconfig
from tests.cluster.control_plane import Site
from tests.cluster.failures import ClusterError
from tests.cluster.images import as_archive, import_archive
from tests.cluster.kubectl import Kubectl
from tests.cluster.machines import Machine, start_machine
from tests.cluster.network import NODES
from tests.cluster.oci_archive import PAUSE, write_archive
from tests.cluster.processes import ProcessId
from tests.cluster.running import Running
from tests.cluster.state import State
from tests.cluster.waiting import wait_for

Say = Callable[[str], None]

NEEDED = [program.name for program in programs.PROGRAMS if program.name not in ("kwok", "helm")]

KERNEL_SETTINGS = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
]
"""What a kubelet sets for the whole host; put back by `down`."""


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
    for make in plane.CONTROLLERS:
        running.start(control_plane, make(site))
    running.start(control_plane, plane.dns(site))
    running.start(control_plane, plane.volumes(site, prepare(folder, "volumes")))
    for machine in machines.values():
        wait_for(
            f"containerd on {machine.name}", lambda m=machine: answers(m, "ctr", "version"), trouble=running.trouble
        )
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
        wait_for(f"{name} to be Ready", lambda n=name: is_ready(kubectl, n), trouble=running.trouble)
        proxy = (probe, "get", "http://127.0.0.1:10256/healthz")
        wait_for(f"kube-proxy on {name}", lambda m=machine, p=proxy: answers(m, *p), trouble=running.trouble)
    ready = (probe, "get", "http://127.0.0.1:8181/ready")
    wait_for("cluster DNS", lambda: answers(control_plane, *ready), trouble=running.trouble)
    wait_for("the default service account", lambda: exists(kubectl, "serviceaccount", "default"))


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


def down(say: Say, folder: Path = state.FOLDER) -> None:
    """Take down whatever is on record; nothing may be."""
    with state.locked(folder):
        known = state.load(folder)
        if known is None:
            say("no cluster is up")
            return
        packages.require_root()
        remove(known)
        say(f"the cluster is down; its logs are in {folder / 'logs'}")


def remove(known: State) -> None:
    """End the machines and remove what the kernel does not remove with them."""
    for first in known.machines.values():
        first.kill()
    for name, process in known.components.items():
        wait_for(f"{name} to end", lambda p=process: not p.alive, seconds=30, every=0.02)
    link = Path("/sys/class/net", network.HOST_LINK)
    wait_for(f"the link {network.HOST_LINK} to go with its machine", lambda: not link.exists(), seconds=30, every=0.05)
    wait_for("the nodes' cgroups to be empty", cgroups_are_gone, seconds=30)
    for name, value in known.kernel_settings.items():
        Path("/proc/sys", name).write_text(value)
    for made in known.folder.iterdir():
        if made.is_dir() and made.name != "logs":
            shutil.rmtree(made)
        elif made.name not in ("logs", "lock", "state.json"):
            made.unlink()
    (known.folder / "state.json").unlink()


def cgroups_are_gone() -> bool:
    """Try to remove them: a cgroup stays busy for a moment after its last process."""
    try:
        cgroups.remove()
    except OSError:
        return False
    return True


def set_plugged(node: str, plugged: bool, say: Say, folder: Path = state.FOLDER) -> None:
    """Cut a node's cable, or mend it, and wait until the control plane has noticed."""
    known = require_up(folder)
    if node not in network.BY_NAME:
        raise ClusterError(f"there is no node {node!r}; the nodes are {' and '.join(network.BY_NAME)}")
    control_plane = Machine("control-plane", known.machines["control-plane"])
    network.set_cable(control_plane, node, "up" if plugged else "down")
    kubectl = Kubectl(kubeconfig_of(folder))
    wait_for(
        f"{node} to be {'Ready' if plugged else 'NotReady'}", lambda: is_ready(kubectl, node) is plugged, seconds=120
    )
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
