"""The schema is structural, its defaults are valid, and the files made from it are up to date."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ytrain_api import parse_job
from ytrain_api.cel import check_rules
from ytrain_api.crd import PATH as CRD_PATH
from ytrain_api.crd import crd, crd_yaml
from ytrain_api.generated_file import write_or_check
from ytrain_api.reference import PATH as REFERENCE_PATH
from ytrain_api.reference import reference
from ytrain_api.schema import Schema, job_schema, with_defaults

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
VERSION = crd()["spec"]["versions"][0]
SCHEMA: Schema = VERSION["schema"]["openAPIV3Schema"]
KNOWN_KEYS = {
    *("type", "description", "format", "enum", "default", "required", "properties", "items", "additionalProperties"),
    *("pattern", "minLength", "maxLength", "minItems", "maxItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations"),
    "x-kubernetes-preserve-unknown-fields",
}
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


NODES = dict(nodes(SCHEMA))


def test_every_node_is_structural() -> None:
    for path, node in NODES.items():
        assert set(node) <= KNOWN_KEYS, path
        assert node["type"] in TYPES, path
        assert ("items" in node) == (node["type"] == "array"), path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node["type"] == "object":
            free = node.get("x-kubernetes-preserve-unknown-fields", False)
            assert free or "properties" in node or "additionalProperties" in node, path
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path
        assert not (
            set(node.get("required", [])) & {n for n, c in node.get("properties", {}).items() if "default" in c}
        )


def test_lists_say_how_they_merge_and_their_keys_are_required() -> None:
    for path, node in NODES.items():
        if node["type"] == "array" and "containers" not in path:
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map"), path
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path
        if node.get("x-kubernetes-list-type") == "set":
            assert node["items"]["type"] not in ("object", "array"), path


def test_only_foreign_blocks_keep_unknown_fields() -> None:
    free = {path for path, node in NODES.items() if "x-kubernetes-preserve-unknown-fields" in node}
    pod = r"\.spec\.(launcher|workers)\.(resources|template.*)"
    foreign = {".spec.data.chatTemplateArgs", ".spec.deepspeed.config", ".spec.rl.reward.builtin.jsonSchema"}
    assert {path for path in free if not re.fullmatch(pod, path)} == foreign


def test_defaults_are_valid_and_nothing_is_pruned_from_them() -> None:
    for path, node in NODES.items():
        if "default" not in node:
            continue
        default = node["default"]
        assert isinstance(default, TYPES[node["type"]]), path
        assert default in node.get("enum", [default]), path
        assert "pattern" not in node or re.search(node["pattern"], default), path
        assert node.get("minimum", -math.inf) <= (default if node["type"] in ("integer", "number") else 0), path
        if isinstance(default, dict):
            # As it stands, for the API server tries the rules before it fills anything in.
            assert default == with_defaults(node, {}), path
            assert set(node.get("required", [])) <= set(default), path
            assert list(check_rules(node, default)) == [], path


def test_every_field_is_explained() -> None:
    for path, node in NODES.items():
        name = path.rsplit(".", 1)[-1]
        if path in ("", ".apiVersion", ".kind", ".metadata", ".metadata.name") or name.endswith("[]"):
            continue
        text = node["description"]
        assert text.endswith(".") and len(text) >= 7, path
        default = node.get("default")
        assert default in (None, []) or isinstance(default, dict) or "Default: " in text, path


def test_optional_spec_fields_say_what_their_absence_means() -> None:
    for path, node in NODES.items():
        if "properties" not in node or not path.startswith(".spec"):
            continue
        for name, child in node["properties"].items():
            optional = name not in node.get("required", []) and "default" not in child
            union = path in (".spec", ".spec.rl.reward") and child["type"] == "object"
            if optional and not union and ".template" not in f"{path}.{name}":
                told = re.search(
                    r"Absent: |Default: |needed by kind|needs them|an existing|of a new claim", child["description"]
                )
                assert told, f"{path}.{name}"


def test_rules_fit_kubernetes_limits() -> None:
    """The API server refuses a CRD whose rules may cost too much; the dear one is a pattern over texts in lists."""
    costs: list[int] = []

    def walk(schema: Schema, times: int, path: str) -> None:
        for rule in schema.get("x-kubernetes-validations", []):
            assert len(rule["message"]) <= 2048 and "\n" not in rule["message"], path
            if "matches(" in rule["rule"] and schema["type"] == "string":
                cost = times * math.ceil(schema["maxLength"] * 4 * 0.1) * math.ceil(len(rule["rule"]) * 0.25)
                assert cost < 10_000_000, (path, cost)
                costs.append(cost)
        for name, child in schema.get("properties", {}).items():
            walk(child, times, f"{path}.{name}")
        if "items" in schema:
            walk(schema["items"], times * schema.get("maxItems", 1_000_000), f"{path}[]")

    walk(SCHEMA["properties"]["spec"], 1, ".spec")
    assert sum(costs) < 50_000_000


def test_field_paths_of_rules_exist() -> None:
    for path, node in NODES.items():
        for rule in node.get("x-kubernetes-validations", []):
            assert path + rule.get("fieldPath", "") in NODES, (path, rule)


def test_defaulting_equals_the_models(job_data) -> None:
    """What the API server stores and what the models hold differ only where a default hangs on another field."""
    data = job_data({"spec.model.lora": {}, "spec.checkpoint": {"keep": None}})
    stored = with_defaults(job_schema(), data)
    modelled = parse_job(data).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert modelled["spec"]["optimization"].pop("batchTokens") == 65536
    assert modelled["spec"]["sft"]["loss"].pop("nlirg")
    assert modelled == stored


def test_printer_columns_read_fields_that_exist() -> None:
    columns: list[dict[str, Any]] = VERSION["additionalPrinterColumns"]
    shown = [column["name"].upper() for column in columns if not column.get("priority")]
    assert shown == ["METHOD", "PHASE", "PROGRESS", "LOSS", "TOK/S", "ETA", "RESTARTS", "AGE"]
    for column in columns:
        if column["type"] != "date":
            assert NODES[column["jsonPath"]]["type"] == column["type"], column
    assert VERSION["subresources"] == {"status": {}}
    assert crd()["spec"]["names"]["shortNames"] == ["ytj"]


def test_generated_files_are_up_to_date() -> None:
    assert (ROOT / CRD_PATH).read_text() == crd_yaml(), "run python -m ytrain_api.crd"
    assert (ROOT / REFERENCE_PATH).read_text() == reference(), "run python -m ytrain_api.reference"
    assert yaml.safe_load(crd_yaml()) == crd()


def test_check_fails_on_a_stale_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    assert write_or_check("new", path, "", ["--check"]) == 1
    assert write_or_check("new", path, "", []) == 0
    assert write_or_check("new", path, "", ["--check"]) == 0
    assert write_or_check("newer", path, "", ["--check"]) == 1
    assert "stale" in capsys.readouterr().out
