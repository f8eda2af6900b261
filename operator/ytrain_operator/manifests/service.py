"""The headless Service by whose name workers find the launcher, before it is ready and after it was replaced."""

from ytrain_api.protocol import PORT
from ytrain_operator.manifests.ownership import Manifest, labels, metadata, surroundings_name
from ytrain_operator.observed import Observed


def launcher_url(observed: Observed) -> str:
    """Where workers find the launcher; the name is relative to the namespace that they share."""
    return f"http://{surroundings_name(observed.name)}:{PORT}"


def service(observed: Observed) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(observed, surroundings_name(observed.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels(observed, "launcher"),
            "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }
