"""The structural OpenAPI schema of a YTrainJob, made from the models: the CRD holds it, rules and messages walk it.

pydantic writes JSON Schema; Kubernetes takes a part of it, without references and unions. This module makes that part.
"""

import copy
from functools import cache
from typing import Any

from ytrain_api.job import YTrainJob

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "x-wording",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
_FORMATS = {"integer": "int64", "number": "double"}


@cache
def job_schema() -> Schema:
    """The schema of a whole YTrainJob; callers must not change it."""
    written = YTrainJob.model_json_schema(by_alias=True)
    schema = _structural(written, written["$defs"])
    schema["properties"]["apiVersion"] = {"type": "string", "enum": schema["properties"]["apiVersion"]["enum"]}
    schema["properties"]["kind"] = {"type": "string", "enum": schema["properties"]["kind"]["enum"]}
    return schema


def _structural(node: Schema, defs: dict[str, Schema]) -> Schema:
    node = _flat(node, defs)
    result = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        result["enum"] = [node["const"]]
    if node["type"] in _FORMATS:
        result["format"] = _FORMATS[node["type"]]
    for bound, side in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            result |= {side: node[bound], bound: True}
    if "items" in node:
        result["items"] = _structural(node["items"], defs)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], defs)
    elif node.get("additionalProperties") is True:
        result["x-kubernetes-preserve-unknown-fields"] = True
    if "properties" in node:
        required = node.get("required", [])
        result["properties"] = {
            name: _property(child, defs, required=name in required) for name, child in node["properties"].items()
        }
        if required:
            result["required"] = required
    return result


def _property(node: Schema, defs: dict[str, Schema], *, required: bool) -> Schema:
    """A field with its default. pydantic hides those made by a factory: the empty list and the empty block."""
    result = _structural(node, defs)
    nullable = any(option.get("type") == "null" for option in node.get("anyOf", []))
    if not required and not nullable:
        result["default"] = node.get("default", [] if result["type"] == "array" else {})
    return result


def _flat(node: Schema, defs: dict[str, Schema]) -> Schema:
    """`node` without reference and without the null of an optional field; what the field itself says wins."""
    if "$ref" in node:
        return {**_flat(defs[node["$ref"].rsplit("/", 1)[1]], defs), **{k: v for k, v in node.items() if k != "$ref"}}
    if "anyOf" in node:
        (option,) = (option for option in node["anyOf"] if option.get("type") != "null")
        return {**_flat(option, defs), **{k: v for k, v in node.items() if k != "anyOf"}}
    return node


def with_defaults(schema: Schema, value: Any) -> Any:
    """`value` as the API server stores it: null taken as absent, then defaults filled in.

    Values of a wrong type are left as they are.
    """
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    filled = dict(value)
    for name, child in schema["properties"].items():
        if filled.get(name) is None:
            filled.pop(name, None)
            if "default" in child:
                filled[name] = copy.deepcopy(child["default"])
        if name in filled:
            filled[name] = with_defaults(child, filled[name])
    return filled
