"""Writes docs/reference.md, a table per block of the YTrainJob: `python -m ytrain_api.reference [--check] [PATH]`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from ytrain_api.crd import default_text
from ytrain_api.generated_file import write_or_check
from ytrain_api.schema import Schema, job_schema
from ytrain_api.wording import allowed

PATH = Path("docs/reference.md")
_HEADER = """<!-- Generated from the models by `python -m ytrain_api.reference`; change them, not this file. -->
# Reference of the YTrainJob

Every field, its values and its default. The same text is in `kubectl explain ytj.spec`. Only fields marked required
must be given; null means left out. Durations are written `90s`, `15m` or `1h30m`, sizes `100Gi`.
"""


def reference() -> str:
    """The reference as Markdown."""
    properties = job_schema()["properties"]
    blocks = [*_sections("spec", properties["spec"]), *_sections("status", properties["status"])]
    return "\n".join([_HEADER, *blocks])


def _sections(path: str, schema: Schema) -> Iterator[str]:
    lines = [f"## {path}", "", schema["description"], "", "| field | takes | default | meaning |", "|---|---|---|---|"]
    for name, child in schema["properties"].items():
        default = "required" if name in schema.get("required", []) else _default(child)
        cells = (f"`{name}`", _takes(f"{path}.{name}", child), default, child["description"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += _rules(schema)
    yield "\n".join(lines) + "\n"
    for name, child in schema["properties"].items():
        if _fields(child):
            suffix = "[]" if child["type"] == "array" else ""
            yield from _sections(f"{path}.{name}{suffix}", _described(child))


def _described(schema: Schema) -> Schema:
    return schema["items"] if schema["type"] == "array" else schema


def _fields(schema: Schema) -> bool:
    return "properties" in schema.get("items", schema)


def _takes(path: str, schema: Schema) -> str:
    if not _fields(schema):
        return allowed(schema)
    anchor = path.lower().replace(".", "").replace("[]", "")
    return f"[{'list of blocks' if schema['type'] == 'array' else 'block'}](#{anchor})"


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default in (None, {}, []) else f"`{default_text(default)}`"


def _rules(schema: Schema) -> list[str]:
    """The rules of a block in words; those of an update apart, for they say what may change."""
    always: list[str] = []
    on_change: list[str] = []
    for rule in schema.get("x-kubernetes-validations", []):
        field = f"`{rule['fieldPath'].removeprefix('.')}`: " if "fieldPath" in rule else ""
        (on_change if "oldSelf" in rule["rule"] else always).append(f"- {field}{rule['message']}")
    lines = ["", "Always refused:", "", *always] if always else []
    return [*lines, "", "Refused when an existing job is changed:", "", *on_change] if on_change else lines


if __name__ == "__main__":
    sys.exit(write_or_check(reference(), PATH, "Write the reference of the YTrainJob."))
