"""What runs in the control plane of both tiers, with which flags, and why."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.programs import path_of


@dataclass(frozen=True)
class Component:
    """One process: its program and its flags."""

    name: str
    command: list[str | Path]


@dataclass(frozen=True)
class Site:
    """Where a control plane is: what differs between the tiers."""

    folder: Path
    pki: Path
    ip: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    services: str
    api_flags: tuple[str, ...] = ()
    node_grace_seconds: int = 16
    """Silence after which a node counts as lost; 50 by default. Quick for tests, slow enough for busy CPUs."""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.ip}:{self.api_port}"

    def kubeconfig(self, identity: str) -> Path:
        """A component's kubeconfig."""
        return self.pki / f"{identity}.kubeconfig"


def etcd(site: Site) -> Component:
    """The store. Nobody needs it after a power cut, so it does not wait for the disk."""
    client, peer = f"http://127.0.0.1:{site.etcd_port}", f"http://127.0.0.1:{site.etcd_peer_port}"
    flags: dict[str, str | Path] = {
        "--data-dir": site.folder / "etcd",
        "--unsafe-no-fsync": "true",
        "--listen-client-urls": client,
        "--advertise-client-urls": client,
        "--listen-peer-urls": peer,
        "--initial-advertise-peer-urls": peer,
        "--initial-cluster": f"default={peer}",
        "--log-level": "warn",
    }
    return component("etcd", flags)


def api_server(site: Site) -> Component:
    """The API server: certificates or service account tokens only, RBAC, Pod Security admission (on by default)."""
    pki = site.pki
    flags: dict[str, str | Path] = {
        "--etcd-servers": f"http://127.0.0.1:{site.etcd_port}",
        "--bind-address": site.ip,
        "--advertise-address": site.ip,
        "--secure-port": str(site.api_port),
        "--service-cluster-ip-range": site.services,
        "--anonymous-auth": "false",
        "--authorization-mode": "Node,RBAC",
        "--enable-admission-plugins": "NodeRestriction",
        "--client-ca-file": pki / "ca.crt",
        "--tls-cert-file": pki / "kube-apiserver.crt",
        "--tls-private-key-file": pki / "kube-apiserver.key",
        "--service-account-issuer": "https://kubernetes.default.svc",
        "--service-account-key-file": pki / "service-accounts.pub",
        "--service-account-signing-key-file": pki / "service-accounts.key",
        # Logs, exec and port-forward go from here to the kubelets, by address: node names are in no DNS.
        "--kubelet-preferred-address-types": "InternalIP",
        "--kubelet-certificate-authority": pki / "ca.crt",
        "--kubelet-client-certificate": pki / "kube-apiserver-kubelet-client.crt",
        "--kubelet-client-key": pki / "kube-apiserver-kubelet-client.key",
        # 300 s by default: how long a pod may stay on a node that is not there. Tests of lost nodes cannot wait.
        "--default-not-ready-toleration-seconds": "10",
        "--default-unreachable-toleration-seconds": "10",
    }
    return component("kube-apiserver", flags, *site.api_flags)


def controller_manager(site: Site) -> Component:
    """The controllers."""
    flags: dict[str, str | Path] = {
        "--kubeconfig": site.kubeconfig("kube-controller-manager"),
        "--leader-elect": "false",
        "--secure-port": "0",
        "--use-service-account-credentials": "true",
        "--service-account-private-key-file": site.pki / "service-accounts.key",
        "--root-ca-file": site.pki / "ca.crt",
        "--cluster-signing-cert-file": site.pki / "ca.crt",
        "--cluster-signing-key-file": site.pki / "ca.key",
        # 15 s by default: how long a claim stays unbound that was made right after its volume.
        "--pvclaimbinder-sync-period": "1s",
        "--node-monitor-period": "2s",
        "--node-monitor-grace-period": f"{site.node_grace_seconds}s",
        "--kube-api-qps": "200",
        "--kube-api-burst": "400",
    }
    return component("kube-controller-manager", flags)


def scheduler(site: Site) -> Component:
    """The scheduler, faster than by default (50 requests a second) for benchmarks of many pods."""
    flags: dict[str, str | Path] = {
        "--kubeconfig": site.kubeconfig("kube-scheduler"),
        "--leader-elect": "false",
        "--secure-port": "0",
        "--kube-api-qps": "500",
        "--kube-api-burst": "1000",
    }
    return component("kube-scheduler", flags)


def dns(site: Site) -> Component:
    """Cluster DNS, as a process beside the API server: it needs no image and stays when a node is unplugged."""
    corefile = site.folder / "Corefile"
    corefile.write_text(
        f""".:53 {{
    bind {site.ip}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {site.kubeconfig("dns")}
        pods insecure
        ttl 5
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""
    )
    return component("dns", {"-conf": corefile})


def volumes(site: Site, root: Path) -> Component:
    """The provisioner of both storage classes."""
    return component("volumes", {"--kubeconfig": site.kubeconfig("volumes"), "--root": root})


def component(name: str, flags: dict[str, str | Path], *more: str) -> Component:
    """A component whose program has its name."""
    return Component(name, [path_of(name), *(f"{flag}={value}" for flag, value in flags.items()), *more])
