"""The volumes of a job: which claims and ConfigMaps it names, and where they are mounted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ytrain_operator.manifests.ownership import run_folder, work_claim_name
from ytrain_operator.observed import Observed

CLAIMS, CONFIG_MAPS, WORK = "/claims", "/configmaps", "/work"

_NAMED = re.compile(r"(pvc|configmap)://([^/]+)")
_PODS_OWN = {"launcher", "workers"}


@dataclass(frozen=True)
class Mount:
    """A volume and where it is seen."""

    volume: dict[str, Any]
    path: str
    read_only: bool = False

    @property
    def volume_mount(self) -> dict[str, Any]:
        mount = {"name": self.volume["name"], "mountPath": self.path}
        return {**mount, "readOnly": True} if self.read_only else mount


def claim_mounts(observed: Observed) -> list[Mount]:
    """A mount for each claim that sources or the output name; only the output's can be written to."""
    written = _named(observed.job.spec.output.target or "").get("pvc", [])
    return [
        Mount(_claim_volume(observed, name), f"{CLAIMS}/{name}", read_only=name not in written)
        for name in _names(observed, "pvc")
    ]


def config_map_mounts(observed: Observed) -> list[Mount]:
    """A mount for each ConfigMap that data come from."""
    return [
        Mount({"name": f"configmap-{i}", "configMap": {"name": name}}, f"{CONFIG_MAPS}/{name}", read_only=True)
        for i, name in enumerate(_names(observed, "configmap"))
    ]


def work_mount(observed: Observed) -> Mount:
    """The work volume; without `storage` a scratch folder that goes with the pod."""
    storage = observed.job.spec.storage
    if storage is None:
        return Mount({"name": "work", "emptyDir": {}}, WORK)
    return Mount(_claim_volume(observed, storage.claim or work_claim_name(observed.name)), WORK)


def volumes(mounts: list[Mount]) -> list[dict[str, Any]]:
    """The volumes of a pod, each once, however often it is mounted."""
    return list({mount.volume["name"]: mount.volume for mount in mounts}.values())


def _claim_volume(observed: Observed, claim: str) -> dict[str, Any]:
    """One and the same wherever the claim is mounted: a kubelet never mounts a second volume of one claim."""
    names = _names(observed, "pvc")
    name = f"claim-{names.index(claim)}" if claim in names else "work"
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def work_folder(observed: Observed) -> str:
    """The run's own folder on the work volume."""
    return f"{WORK}/{run_folder(observed)}"


def named_roots(mounts: list[Mount], option: str) -> list[str]:
    """`--claim NAME=DIR` and the like, an option for each mount."""
    return [word for mount in mounts for word in (option, f"{mount.path.rpartition('/')[2]}={mount.path}")]


def _names(observed: Observed, scheme: str) -> list[str]:
    spec = observed.job.spec.model_dump(mode="json", exclude_none=True, exclude=_PODS_OWN)
    found = {name for text in _texts(spec) for name in _named(text).get(scheme, [])}
    return sorted(found)


def _named(text: str) -> dict[str, list[str]]:
    match = _NAMED.match(text)
    return {match[1]: [match[2]]} if match else {}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child)
