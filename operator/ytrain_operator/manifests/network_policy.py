"""The NetworkPolicy: a job's pods hear each other, its launcher hears the operator too, and nobody else is heard."""

from ytrain_api.protocol import PORT
from ytrain_operator.manifests.ownership import Manifest, labels, metadata, surroundings_name
from ytrain_operator.observed import Observed
from ytrain_operator.settings import Settings


def network_policy(observed: Observed, settings: Settings) -> Manifest:
    """Of everything that comes in; what goes out (hubs, buckets) is the cluster's own matter."""
    same_job = {"podSelector": {"matchLabels": labels(observed)}}
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {"matchLabels": dict(settings.operator_pod_labels)},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(observed, surroundings_name(observed.name)),
        "spec": {
            "podSelector": {"matchLabels": labels(observed)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [same_job]},
                {"from": [operator], "ports": [{"port": PORT, "protocol": "TCP"}]},
            ],
        },
    }
