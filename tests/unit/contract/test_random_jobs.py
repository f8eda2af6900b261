"""Random valid jobs survive dump and load unchanged; one wrong field in them gives a SpecError and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ytrain_api import dump_job, load_job, parse_job
from ytrain_api.errors import SpecError
from ytrain_api.schema import Schema, job_schema

pytestmark = pytest.mark.unit

METHODS = ("sft", "cpt", "rl", "corpus")
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
YAML_PIECES = (
    "kind: YTrainJob",
    "spec:",
    "\n",
    "  ",
    "- ",
    "{",
    "}",
    "[",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "!!int ",
    "x: 1",
    "---",
    "'",
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
FREE = st.dictionaries(
    st.text(min_size=1, max_size=5), SCALARS | st.text(max_size=5) | st.lists(SCALARS, max_size=2), max_size=2
)


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that fit one node of the schema, rules between fields aside."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", 0), schema.get("maximum", 2**31))
        case "number":
            return st.floats(
                schema.get("minimum", 0),
                schema.get("maximum", 1e6),
                exclude_min="exclusiveMinimum" in schema,
                exclude_max="exclusiveMaximum" in schema,
            )
        case "string" if "pattern" in schema:
            if "duration" in schema["x-wording"]:
                return st.from_regex(r"[0-9]{1,3}(ms|s|m|h)", fullmatch=True, alphabet=PRINTABLE)
            texts = st.from_regex(schema["pattern"], fullmatch=True, alphabet=PRINTABLE)
            return texts.filter(lambda text: len(text) <= schema["maxLength"])
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=40)
        case "array":
            unique = schema.get("x-kubernetes-list-type") in ("set", "map")
            return st.lists(
                values(schema["items"]),
                min_size=schema.get("minItems", 0),
                max_size=3,
                unique_by=(lambda item: item["name"] if isinstance(item, dict) else item) if unique else None,
            )
    return blocks(schema) if "properties" in schema else FREE


def blocks(schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
    required = schema.get("required", [])
    fields = {name: values(child) for name, child in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: value for name, value in fields.items() if name in required},
        optional={name: value for name, value in fields.items() if name not in required},
    )


SPEC = job_schema()["properties"]["spec"]
FIELDS = SPEC["properties"]
BLOCKS = {method: blocks(FIELDS[method]) for method in METHODS}
COMMON = blocks({**SPEC, "properties": {name: child for name, child in FIELDS.items() if name not in METHODS}})


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Specs that keep the rules between fields."""
    spec = draw(COMMON)
    method = draw(st.sampled_from(METHODS))
    block = spec[method] = draw(BLOCKS[method])
    keep_rules_of_method(method, block)
    if "loss" in block:
        keep_rules_of_loss(block["loss"], "nlirg" if method == "sft" else "crossEntropy")
    if method in ("sft", "rl") and spec["data"].get("overlong") == "split":
        spec["data"]["overlong"] = "truncate"
    optimization = spec.setdefault("optimization", {})
    optimization.pop("batchSequences" if draw(st.booleans()) else "batchTokens", None)
    if "microBatchTokens" in optimization:
        spec["data"]["maxTokens"] = optimization["microBatchTokens"]
    if "lora" not in spec["model"]:
        spec.pop("output", None)
    spec["storage"] = {"claim": "work"}
    for name, field in (("workers", "minReplicas"), ("policy", "ttlDeletes"), ("deepspeed", "offload")):
        spec.get(name, {}).pop(field, None)
    return spec


def keep_rules_of_method(method: str, block: dict[str, Any]) -> None:
    if method == "rl":
        block["reward"] = {"builtin": {"kind": "numeric", "tolerance": 0.5}}
        block.setdefault("tree", {})
    if method == "corpus":
        analyses = ("divergence", "clusters", "duplicates")
        for name in set(analyses) - set(block.get("analyses", analyses)):
            block.pop(name, None)


def keep_rules_of_loss(loss: dict[str, Any], default: str) -> None:
    kind = loss.get("kind", default)
    for name in {"nlirg", "eaft", "threshold"} - {kind}:
        loss.pop(name, None)
    if kind == "threshold":
        loss.setdefault("threshold", {"limit": 5.0})
    if "nlirg" in loss:
        loss["nlirg"] |= {"split": 3.0, "cutoff": 15.0}


def as_job(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "ytrain.io/v1alpha1", "kind": "YTrainJob", "metadata": {"name": "random"}, "spec": spec}


def leaves(value: Any, schema: Schema, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of every given field whose type the contract fixes."""
    if isinstance(value, dict) and "properties" in schema:
        children = [(name, value[name], child) for name, child in schema["properties"].items() if name in value]
    elif isinstance(value, list):
        children = [(index, item, schema["items"]) for index, item in enumerate(value)]
    else:
        return [path]
    return [
        *([path] if path else []),
        *(leaf for name, item, child in children for leaf in leaves(item, child, (*path, name))),
    ]


FEW = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@FEW
@given(specs())
def test_dump_and_load_round_trip(tmp_path: Path, spec: dict[str, Any]) -> None:
    try:
        job = parse_job(as_job(spec))
    except SpecError as error:  # a duration of zero is the one value that the schema lets through
        assert all("longer than zero" in line for line in str(error).splitlines()), error
        return
    path = tmp_path / "job.yaml"
    path.write_text(dump_job(job), encoding="utf-8")
    assert load_job(path).job == job


@FEW
@given(specs(), st.data())
def test_a_value_of_a_wrong_type_is_a_spec_error(spec: dict[str, Any], data: st.DataObject) -> None:
    """A list within a list is what no field takes."""
    *above, last = data.draw(st.sampled_from(leaves(spec, SPEC)))
    block: Any = spec
    for part in above:
        block = block[part]
    block[last] = [[]]
    with pytest.raises(SpecError, match=r"^spec\."):
        parse_job(as_job(spec))


@FEW
@given(specs(), st.text(min_size=1))
def test_an_unknown_field_is_a_spec_error(spec: dict[str, Any], name: str) -> None:
    assume(name not in FIELDS)
    with pytest.raises(SpecError, match="unknown field"):
        parse_job(as_job(spec | {name: 1}))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(YAML_PIECES), max_size=12).map("".join))
def test_any_text_is_a_job_or_a_spec_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        load_job(path)
