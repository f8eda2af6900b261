"""The ConfigMap with the job as the launcher reads it."""

import yaml

from ytrain_api import API_VERSION, KIND
from ytrain_operator.manifests.ownership import Manifest, metadata, surroundings_name
from ytrain_operator.observed import Observed

FILE = "job.yaml"

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # in Python it would be most of a plan's time

_OPERATOR_ALONE = {"suspend", "queue", "image"}
"""What does not matter inside the pods, and would change the ConfigMap for nothing."""


def config_map(observed: Observed) -> Manifest:
    """Only what the job's author or the API server wrote: a trainer of another version has defaults of its own."""
    spec = observed.job.spec.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_unset=True, exclude=_OPERATOR_ALONE
    )
    for role in ("launcher", "workers"):
        spec.get(role, {}).pop("template", None)
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": observed.name, "namespace": observed.namespace, "uid": observed.uid},
        "spec": spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(observed, surroundings_name(observed.name)),
        "data": {FILE: yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)},
    }
