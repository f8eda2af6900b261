"""Reads the file of `ytrain run`: one YTrainJob and, beside it, the ConfigMaps and Secrets that it names.

The same file goes to `kubectl apply`, so what is refused here is refused there.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from ytrain_api.check import check_job
from ytrain_api.errors import SpecError
from ytrain_api.finding import Finding
from ytrain_api.job import API_VERSION, KIND, YTrainJob
from ytrain_api.without_effect import without_effect
from ytrain_api.yaml_file import Document, read_documents, write_document

Contents = Mapping[str, Mapping[str, bytes]]
_RESULT = ("model", "data", "sft", "cpt", "rl", "corpus", "optimization", "deepspeed")


@dataclass(frozen=True)
class JobFile:
    """A job with the ConfigMaps and Secrets beside it, as name -> key -> bytes."""

    job: YTrainJob
    config_maps: Contents = field(default_factory=dict)
    secrets: Contents = field(default_factory=dict, repr=False)


def load_job(path: str | Path) -> JobFile:
    """The job of a YAML file.

    Raises SpecError with one line per finding, each with file, line, field path, value, what is allowed and what to do.
    """
    documents = _read(Path(path))
    lines = [
        f"{path}:{document.line(finding.path)}: {finding}" for document in documents for finding in document.findings
    ]
    jobs = [document for document in documents if _kind(document) == KIND]
    if len(jobs) != 1:
        lines.append(_wrong_count(path, documents, jobs))
    job: YTrainJob | None = None
    config_maps: dict[str, dict[str, bytes]] = {}
    secrets: dict[str, dict[str, bytes]] = {}
    for document in documents:
        findings: list[Finding] = []
        match _kind(document):
            case "YTrainJob":
                job, findings = check_job(document.value)
            case "ConfigMap":
                config_maps |= _contents(document.value, "data", "binaryData", findings)
            case "Secret":
                secrets |= _contents(document.value, "stringData", "data", findings)
        findings.sort(key=lambda finding: document.line(finding.path))
        lines += [f"{path}:{document.line(finding.path)}: {finding}" for finding in findings]
    if lines or job is None:
        raise SpecError("\n".join(lines))
    return JobFile(job, config_maps, secrets)


def dump_job(job: YTrainJob) -> str:
    """The job as YAML with every default filled in; `load_job` reads it back equal."""
    data = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    return write_document(data)


def config_digest(job: YTrainJob) -> str:
    """SHA-256 over what in the spec determines the trained weights, defaults filled in.

    What does not count: where and how it runs (workers, storage, policy, queue, suspend, image), what is measured,
    when it is saved, and fields that say nothing with its method.
    """
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(_RESULT))
    _, unused = without_effect(job.spec)
    for block, _, name in (path.partition(".") for path in unused):
        spec.get(block, {}).pop(to_camel(name), None)
    return "sha256:" + hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> list[Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    try:
        return read_documents(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(
            f"{path}:{line}: not YAML: {error.problem}; check indentation, colons and quotes there"
        ) from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def _kind(document: Document) -> Any:
    return document.value.get("kind") if isinstance(document.value, dict) else None


def _wrong_count(path: str | Path, documents: list[Document], jobs: list[Document]) -> str:
    if jobs:
        at = " and ".join(str(document.line(())) for document in jobs)
        return f"{path}: {len(jobs)} documents of kind {KIND} (lines {at}); a file holds exactly one, split it"
    if not documents:
        return f"{path}: empty; it should hold a {KIND} (apiVersion: {API_VERSION})"
    kinds = ", ".join(str(_kind(document) or "a document without kind") for document in documents)
    return f"{path}: no document of kind {KIND} (found: {kinds}); add kind: {KIND} and apiVersion: {API_VERSION}"


def _contents(value: dict[str, Any], plain: str, encoded: str, findings: list[Finding]) -> dict[str, dict[str, bytes]]:
    """`{name: {key: bytes}}` of a ConfigMap or Secret: block `plain` holds text, block `encoded` holds base64."""
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        findings.append(Finding(("metadata", "name"), f"missing; the job names this {value['kind']} by it"))
        return {}
    contents: dict[str, bytes] = {}
    for block, decode in ((encoded, _decoded), (plain, str.encode)):
        entries = value.get(block) or {}
        if not isinstance(entries, dict):
            findings.append(Finding((block,), "not a block of keys with text", entries))
            continue
        for key, text in entries.items():
            if not isinstance(text, str):
                findings.append(Finding((block, key), "this is not text; put it in quotes or after key: |"))
                continue
            try:
                contents[key] = decode(text)
            except binascii.Error:
                hint = f"not base64; encode it, or move the plain text to {plain}"
                findings.append(Finding((block, key), hint))
    return {name: contents}


def _decoded(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)
