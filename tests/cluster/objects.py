"""What the cluster is given once its API server answers: roles, storage classes, DNS."""

from typing import Any

from tests.cluster import network

RBAC = "rbac.authorization.k8s.io"
Object = dict[str, Any]


def bind(user: str, role: str) -> Object:
    """Bind a user to a cluster role."""
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{user}-{role}"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
    }


def role(name: str, *rules: tuple[str, list[str], list[str]]) -> Object:
    """A cluster role of rows: API group, resources, verbs."""
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{"apiGroups": [group], "resources": what, "verbs": verbs} for group, what, verbs in rules],
    }


def storage_class(name: str, binding: str, *, default: bool = False) -> Object:
    """A class of folders."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "ytrain.io/folder",
        "volumeBindingMode": binding,
        "reclaimPolicy": "Delete",
    }


READ = ["get", "list", "watch"]

ROLES = [
    # Without it the API server may not fetch logs or exec.
    bind("kube-apiserver-kubelet-client", "system:kubelet-api-admin"),
    role(
        "system:coredns",
        ("", ["services", "pods", "namespaces", "endpoints"], READ),
        ("discovery.k8s.io", ["endpointslices"], READ),
    ),
    bind("system:coredns", "system:coredns"),
    role("ytrain:volumes", ("", ["nodes"], READ)),  # to learn the name of the node that the scheduler chose
    bind("ytrain:volumes", "ytrain:volumes"),
    bind("ytrain:volumes", "system:persistent-volume-provisioner"),
]

STORAGE = [
    storage_class("standard", "WaitForFirstConsumer", default=True),
    storage_class("shared", "Immediate"),
]

DNS_METADATA = {"name": "kube-dns", "namespace": "kube-system"}
DNS_PORTS = [{"name": name, "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")]
DNS: list[Object] = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": DNS_METADATA,
        "spec": {"clusterIP": network.DNS_SERVICE_IP, "ports": DNS_PORTS},
    },
    {  # no selector: the server is a process on the control plane, not a pod
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**DNS_METADATA, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [network.CONTROL_PLANE_IP]}],
        "ports": DNS_PORTS,
    },
]
