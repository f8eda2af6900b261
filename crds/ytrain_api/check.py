"""Checks one YTrainJob as the API server would, and says everything that is wrong with it at once.

Four passes: unknown fields, types and ranges by the models, doubled list entries, cross-field rules in CEL.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ytrain_api.cel import check_rules
from ytrain_api.errors import SpecError
from ytrain_api.finding import Finding, Path, dotted
from ytrain_api.job import YTrainJob
from ytrain_api.schema import Schema, job_schema, with_defaults
from ytrain_api.wording import in_words


def parse_job(document: Mapping[str, Any]) -> YTrainJob:
    """The job of an API object or a read file.

    Raises SpecError with one line per finding: the field's path, its value, what is allowed, what to do.
    """
    job, findings = check_job(document)
    if job is None:
        raise SpecError("\n".join(str(finding) for finding in findings))
    return job


def check_update(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    """What of the change from one valid API object to another is refused, by the rules that the API server applies."""
    schema = job_schema()
    return list(check_rules(schema, with_defaults(schema, new), with_defaults(schema, old)))


def check_job(document: Mapping[str, Any]) -> tuple[YTrainJob | None, list[Finding]]:
    """The job, or None and what is wrong with the document."""
    schema = job_schema()
    findings: list[Finding] = []
    known = _known_fields(schema, dict(document), (), findings)
    job = None
    try:
        job = YTrainJob.model_validate(known, by_alias=True, by_name=False)
    except ValidationError as error:
        findings += [in_words(schema, fault) for fault in error.errors(include_url=False)]
    findings += _doubled(schema, known, ())
    findings += check_rules(schema, with_defaults(schema, known), types_are_right=not findings)
    return (None if findings else job), findings


def _known_fields(schema: Schema, value: Any, path: Path, findings: list[Finding]) -> Any:
    """`value` without unknown fields, each a finding; a misspelt one goes on under the name that was meant."""
    if isinstance(value, list) and "items" in schema:
        return [_known_fields(schema["items"], item, (*path, i), findings) for i, item in enumerate(value)]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    fields: dict[str, Schema] = schema["properties"]
    result: dict[str, Any] = {}
    for name, child in value.items():
        meant = name
        if name not in fields:
            if "x-kubernetes-preserve-unknown-fields" in schema:
                result[name] = child
                continue
            meant = _nearest(name, [field for field in fields if field not in value])
            findings.append(Finding((*path, name), f"unknown field; {_advice(name, meant, fields)}"))
        if meant:
            result[meant] = _known_fields(fields[meant], child, (*path, meant), findings)
    return result


def _nearest(name: str, fields: list[str]) -> str:
    """The field that was probably meant, or nothing."""
    plain = {field.lower(): field for field in fields}
    close = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else ""


def _advice(name: str, meant: str, fields: Mapping[str, Schema]) -> str:
    if meant:
        return f"did you mean {meant}?"
    elsewhere = [dotted(path) for path in _paths(job_schema(), ()) if path[-1] == name]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere[:3])}?"
    return f"known here: {', '.join(fields)}"


def _paths(schema: Schema, path: Path) -> Iterator[Path]:
    for name, child in schema.get("properties", {}).items():
        if path == () and name not in ("metadata", "spec"):
            continue
        yield (*path, name)
        yield from _paths(child.get("items", child), (*path, name))


def _doubled(schema: Schema, value: Any, path: Path) -> Iterator[Finding]:
    """Entries that come twice in a list of unique entries, which server-side apply could not merge."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                yield from _doubled(child, value[name], (*path, name))
    if not isinstance(value, list) or "items" not in schema:
        return
    keys = schema.get("x-kubernetes-list-map-keys", [])
    seen: list[Any] = []
    for index, item in enumerate(value):
        yield from _doubled(schema["items"], item, (*path, index))
        if schema.get("x-kubernetes-list-type", "atomic") == "atomic":
            continue
        identity = tuple(item.get(key) for key in keys) if keys and isinstance(item, dict) else item
        if identity in seen:
            yield Finding((*path, index, *keys), "comes twice; entries are unique, remove or rename one", item)
        seen.append(identity)
