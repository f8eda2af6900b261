"""Pods for the cluster's own tests, all of which run the program `probe` and pass Pod Security `restricted`."""

from typing import Any

from tests.cluster.oci_archive import PROBE

Object = dict[str, Any]

RESTRICTED_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "fsGroup": 2000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def probe_spec(*arguments: str, node: str | None = None, claim: str | None = None, memory: str = "64Mi") -> Object:
    """The spec of a pod that runs `probe ARGUMENTS`, on one node if it is named, with a claim mounted at /data."""
    container: Object = {
        "name": "probe",
        "image": PROBE,
        "args": list(arguments),
        "securityContext": RESTRICTED_CONTAINER,
        "resources": {"limits": {"memory": memory}},
    }
    spec: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": RESTRICTED_POD,
        "containers": [container],
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return spec


def probe(name: str, *arguments: str, node: str | None = None, claim: str | None = None, **labels: str) -> Object:
    """Such a pod."""
    return pod(name, probe_spec(*arguments, node=node, claim=claim), **labels)


def pod(name: str, spec: Object, **labels: str) -> Object:
    """A pod of a spec."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def headless_service(name: str, port: int) -> Object:
    """A service without address: DNS answers with the pods that are labelled app=NAME."""
    spec = {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def claim(name: str, storage_class: str | None, mode: str) -> Object:
    """A claim of 1 Mi; without a class it gets the default one."""
    spec: Object = {"accessModes": [mode], "resources": {"requests": {"storage": "1Mi"}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def deployment(name: str, spec: Object) -> Object:
    """One replica of a pod's spec."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {**spec, "restartPolicy": "Always"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
