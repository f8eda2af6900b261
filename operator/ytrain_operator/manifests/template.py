"""Merges the partial PodTemplateSpec of a job into a pod, as a strategic merge patch would."""

from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
}
"""Lists whose entries are one by this key, as in Kubernetes' own types."""

_ADDED = ("tolerations", "envFrom")
"""Lists that are added to."""


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `patch` says; other lists than those above are replaced."""
    result = dict(base)
    for name, value in patch.items():
        before = result.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            result[name] = merged(before, value)
        elif isinstance(value, Sequence) and isinstance(before, Sequence) and not isinstance(value, str):
            result[name] = _merged_list(name, before, value)
        else:
            result[name] = value
    return result


def _merged_list(name: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    if name in _ADDED:
        return [*base, *(entry for entry in patch if entry not in base)]
    key = _KEYS.get(name)
    if key is None:
        return list(patch)
    entries = {entry.get(key): entry for entry in base}
    for entry in patch:
        entries[entry.get(key)] = merged(entries.get(entry.get(key), {}), entry)
    return list(entries.values())
