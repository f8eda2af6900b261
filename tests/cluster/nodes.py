"""What runs on a node, with which settings, and why: containerd, kubelet, kube-proxy.

A node is a machine of its own, so each has the usual ports and paths; only the cgroups are the host's.
"""

import json
from pathlib import Path

import yaml
from tests.cluster import network
from tests.cluster.control_plane import Component, component
from tests.cluster.network import NodeAddress
from tests.cluster.oci_archive import PAUSE

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CGROUPS = "ytrain-cluster"


def components(node: NodeAddress, pki: Path, folder: Path) -> list[Component]:
    """The node's processes in the order of their start; their settings are written into `folder`."""
    return [containerd(node, folder), kubelet(node, pki, folder), kube_proxy(node, pki, folder)]


def containerd(node: NodeAddress, folder: Path) -> Component:
    """The container runtime, from Debian."""
    network_plugins = folder / "cni"
    network_plugins.mkdir(exist_ok=True)
    (network_plugins / "10-pods.conflist").write_text(json.dumps(pod_network(node), indent=2))
    settings = folder / "containerd.toml"
    settings.write_text(
        f"""version = 2
disabled_plugins = [{", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in UNUSED_SNAPSHOTTERS)}]

# By default /opt/containerd is made on the host.
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE nobody may write a lower oom_score_adj than its own: runc would fail with
  # "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{network_plugins}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
    )
    return Component("containerd", ["/usr/bin/containerd", "--config", settings])


UNUSED_SNAPSHOTTERS = ["aufs", "btrfs", "devmapper", "zfs"]


def pod_network(node: NodeAddress) -> dict[str, object]:
    """A cable from the node to each pod and no bridge: all traffic is routed, so a service's answer always comes back
    through the node, where kube-proxy's translation is undone; on a bridge that needs the module br_netfilter."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/pod-addresses",
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{"type": "ptp", "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}


def kubelet(node: NodeAddress, pki: Path, folder: Path) -> Component:
    """The kubelet."""
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.ip,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{node.name}.key"),
        "clusterDNS": [network.DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "",  # names outside the cluster have no server: nothing leaves this machine
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUPS}/{node.name}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "nodeLeaseDurationSeconds": 8,  # renewed every quarter of it, see --node-monitor-grace-period
        "nodeStatusUpdateFrequency": "4s",
        "imageGCHighThresholdPercent": 100,  # an image that was loaded can be pulled from nowhere
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }
    path = folder / "kubelet.yaml"
    path.write_text(yaml.safe_dump(settings))
    flags: dict[str, str | Path] = {
        "--config": path,
        "--kubeconfig": pki / f"{node.name}.kubeconfig",
        "--hostname-override": node.name,
        "--node-ip": node.ip,
    }
    return component("kubelet", flags)


def kube_proxy(node: NodeAddress, pki: Path, folder: Path) -> Component:
    """Services, as iptables rules of the node's own network namespace."""
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node.name,
        "bindAddress": node.ip,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": network.PODS,  # who comes from elsewhere gets the node's address, so that answers find back
        "clientConnection": {"kubeconfig": str(pki / "kube-proxy.kubeconfig")},
        "conntrack": {"maxPerCore": 0, "min": 0},  # the limits are the host's, and not writable from a namespace
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }
    path = folder / "kube-proxy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return component("kube-proxy", {"--config": path})
