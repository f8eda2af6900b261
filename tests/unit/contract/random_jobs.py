"""Random jobs for hypothesis: valid specs, and specs of which something was changed into what may not be allowed."""

import copy
from typing import Any

from hypothesis import strategies as st

from ytrain_api.schema import Schema, job_schema

METHODS = ("sft", "cpt", "rl", "corpus")
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
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
        if block["tree"].get("forks", 2) * block["tree"].get("branches", 2) > 128:  # in up to 16 rounds
            block["tree"] |= {"forks": 8, "branches": 16}
        rollout = block.get("rollout", {})
        if rollout.get("engine") == "vllm":
            rollout.pop("topP", None)
            block["tree"].pop("pruning", None)
        else:
            rollout.pop("gpuMemoryUtilization", None)
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
    elif isinstance(value, list) and "items" in schema:
        children = [(index, item, schema["items"]) for index, item in enumerate(value)]
    else:
        return [path]
    return [
        *([path] if path else []),
        *(leaf for name, item, child in children for leaf in leaves(item, child, (*path, name))),
    ]


ODD = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 2, 1000, 2**31, 2**63, 0.5, 1e-9, 1e300),
        *(
            "",
            " ",
            "x",
            "auto",
            "none",
            "true",
            "7",
            "5e-6",
            "0s",
            "1h30m",
            "100Gi",
            "a/b",
            "../x",
            "\u00e9\n",
            "y" * 600,
        ),
        *(
            "pvc://claim/path",
            "hf://owner/name@main",
            "s3://",
            "configmap://x",
            "https://example.com",
            "hf_" + "a" * 20,
        ),
        *([], [[]], ["x", "x"], {}, {"name": "x"}, {"": 1}),
    ]
)
"""Values that are right in one place and wrong in most."""


@st.composite
def mutated_specs(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    """`base`, or a random valid spec, in which one to three fields were replaced, removed or added."""
    spec = copy.deepcopy(draw(st.one_of(st.just(base), specs())))
    for _ in range(draw(st.integers(1, 3))):
        paths = leaves(spec, SPEC)
        *above, last = draw(st.sampled_from(paths)) if paths else ("model",)
        block: Any = spec
        for part in above:
            block = block[part]
        change = draw(st.sampled_from(["replace", "remove", "add", "misspell"]))
        if change == "replace" or isinstance(block, list):
            block[last] = draw(ODD)
        elif change == "remove":
            block.pop(last, None)
        elif change == "misspell":
            block[f"{last}s"] = block.pop(last, None)
        else:
            name = draw(st.sampled_from(sorted(FIELDS)))
            spec[name] = draw(values(FIELDS[name]))
    return spec
