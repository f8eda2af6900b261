"""Writes the CustomResourceDefinition: `python -m ytrain_api.crd [--check] [PATH]`, from the repository's root.

The schema comes from schema.py; this module adds names, printer columns and what `kubectl explain` needs.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from ytrain_api.generated_file import write_or_check
from ytrain_api.job import KIND
from ytrain_api.schema import Schema, job_schema, with_defaults

PATH = Path("crds/ytrainjobs.ytrain.io.yaml")
_HEADER = "# Generated from the models by `python -m ytrain_api.crd`; change them, not this file.\n"

# name, type, path, priority: 1 is shown by `kubectl get -o wide` only
_COLUMNS = (
    ("Method", "string", ".status.method", 0),
    ("Phase", "string", ".status.phase", 0),
    ("Progress", "string", ".status.progress.summary", 0),
    ("Loss", "number", ".status.progress.loss", 0),
    ("Tok/s", "integer", ".status.progress.tokensPerSecond", 0),
    ("ETA", "string", ".status.progress.eta", 0),
    ("Restarts", "integer", ".status.restarts", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Model", "string", ".spec.model.source", 1),
    ("Workers", "integer", ".status.workers.ready", 1),
    ("Queue", "string", ".spec.queue", 1),
    ("Checkpoint", "integer", ".status.checkpoint.step", 1),
    ("Failure", "string", ".status.failure.class", 1),
)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of YTrainJob."""
    schema = _explained(job_schema())
    schema["properties"]["apiVersion"] = {"type": "string"}
    schema["properties"]["kind"] = {"type": "string"}
    # Kubernetes owns metadata; a CRD may name only its name, which the rule about it points to.
    schema["properties"]["metadata"] = {"type": "object", "properties": {"name": {"type": "string"}}}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, **({"priority": priority} if priority else {})}
            for name, kind, path, priority in _COLUMNS
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": KIND, "listKind": f"{KIND}List", "plural": "ytrainjobs", "singular": "ytrainjob"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "ytrainjobs.ytrain.io"},
        "spec": {
            "group": "ytrain.io",
            "scope": "Namespaced",
            "names": {**names, "shortNames": ["ytj"], "categories": ["all"]},
            "versions": [version],
        },
    }


def crd_yaml() -> str:
    """The CustomResourceDefinition as the repository holds it and `ytrain crd` prints it."""
    return _HEADER + yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice out twice: anchors are hard to read in a diff."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _explained(schema: Schema) -> Schema:
    """The schema with whole defaults, said in descriptions where `kubectl explain` shows them, and without wording."""
    result = {key: value for key, value in schema.items() if key != "x-wording"}
    if "properties" in schema:
        result["properties"] = {name: _explained(child) for name, child in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _explained(schema["items"])
    default = schema.get("default")
    if isinstance(default, dict):
        # The API server tries a block's rules on its default as it stands here, before the fields' defaults are in it.
        result["default"] = with_defaults(schema, default)
    if default not in (None, {}, []):
        result["description"] = f"{schema['description']} Default: {default_text(default)}."
    return result


def default_text(default: Any) -> str:
    """A default as one writes it in YAML."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return f"[{', '.join(map(default_text, default))}]"
    return '""' if default == "" else f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    sys.exit(write_or_check(crd_yaml(), PATH, "Write the CustomResourceDefinition of YTrainJob."))
