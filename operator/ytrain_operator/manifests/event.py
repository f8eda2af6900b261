"""An event as `kubectl describe` shows it. The same news has the same name, so telling it again counts one event."""

import hashlib
from collections.abc import Mapping
from typing import Any

from ytrain_api import API_VERSION, KIND
from ytrain_operator.manifests.ownership import MANAGED_BY, Manifest
from ytrain_operator.observed import Observed
from ytrain_operator.status.events import Event
from ytrain_operator.timestamps import to_text

_LONGEST = 1000
"""The API server takes messages up to 1024 characters."""


def event_manifest(observed: Observed, event: Event) -> Manifest:
    said = f"{observed.uid} {event.type} {event.reason} {event.message}"
    now = to_text(observed.now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{observed.name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": observed.namespace,
            "labels": dict(MANAGED_BY),
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": observed.name,
            "namespace": observed.namespace,
            "uid": observed.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_LONGEST],
        "source": {"component": "ytrain-operator"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def repetition(told: Mapping[str, Any], again: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The JSON patch by which the same news adds to an event of the API server, if nobody has counted it meanwhile."""
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": told["metadata"]["resourceVersion"]},
        {"op": "add", "path": "/count", "value": told.get("count", 1) + again["count"]},
        {"op": "add", "path": "/lastTimestamp", "value": again["lastTimestamp"]},
    ]
