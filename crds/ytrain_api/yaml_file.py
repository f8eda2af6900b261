"""Reads YAML as the cluster does (numbers such as 5e-6, no doubled keys), with the line of every field; writes it too.

PyYAML reads YAML 1.1, where `5e-6` is text, `1:30` is ninety and `2026-01-01` is a date; kubectl reads none of them so.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from ytrain_api.finding import Finding, Path

_SCALARS = ("null", "bool", "int", "float", "str")


class _Loader(yaml.SafeLoader):
    """SafeLoader with kubectl's idea of numbers and without dates."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] in ("null", "bool", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text which _Loader, or a YAML 1.1 reader, would take for something else."""


for _tag, _pattern, _first in (
    ("int", r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$", "-+0123456789"),
    (
        "float",
        r"^([-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        "-+.0123456789",
    ),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """PyYAML folds the rare line breaks away outside double quotes."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Document:
    """One document of a file: its value, the line of every field in it, and what is wrong with it as YAML."""

    value: Any
    lines: dict[Path, int]
    findings: list[Finding]

    def line(self, path: Path) -> int:
        """Line of `path`, or of the nearest field above it that is written in the file."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read_documents(text: str) -> list[Document]:
    """The documents of a YAML text; empty ones are left out.

    Raises yaml.YAMLError when the text is not YAML.
    """
    loader = _Loader(text)
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node said that there is a document"
            reader = _Reader(loader)
            value = reader.read(node, (), ())
            if value is not None:
                documents.append(Document(value, reader.lines, reader.findings))
    finally:
        loader.dispose()
    return documents


def write_document(value: Any) -> str:
    """`value` as YAML that `read_documents` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Reader:
    """Turns one document's nodes into values, noting lines and faults on the way."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.lines: dict[Path, int] = {}
        self.findings: list[Finding] = []

    def read(self, node: yaml.Node, path: Path, above: tuple[yaml.Node, ...]) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if any(node is ancestor for ancestor in above):
            self.findings.append(Finding(path, "an anchor that contains itself; write the value out"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, (*above, node))
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index), (*above, node)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        self._check_keys(node, path)
        if any(merged is ancestor for merged in _merged(node) for ancestor in above):
            self.findings.append(Finding(path, "an anchor that contains itself; write the value out"))
            return {}
        self.loader.flatten_mapping(node)
        result = {}
        for key, value in node.value:
            name = str(key.value)
            self.lines[(*path, name)] = key.start_mark.line + 1
            result[name] = self.read(value, (*path, name), above)
        return result

    def _check_keys(self, node: yaml.MappingNode, path: Path) -> None:
        written: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.findings.append(Finding(path, f"the key on line {line} is not plain text"))
            elif key.value in written and not _is_merge(key):
                twice = f"given twice, on lines {written[key.value]} and {line}; remove one"
                self.findings.append(Finding((*path, key.value), twice))
            else:
                written[key.value] = line

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        tag = node.tag.rsplit(":", 1)[1] if node.tag.startswith("tag:yaml.org,2002:") else node.tag
        if tag not in _SCALARS:
            self.findings.append(Finding(path, f"the YAML tag {node.tag} is not supported; remove it", node.value))
            return None
        try:
            value = self.loader.construct_object(node)
        except (ValueError, IndexError, KeyError):  # what PyYAML raises for `!!int x`, `!!int` and `!!bool x`
            self.findings.append(
                Finding(path, f"not a value of the YAML type {tag}; remove the tag !!{tag}", node.value)
            )
            return None
        return _as_json_number(value)


def _is_merge(key: yaml.Node) -> bool:
    return key.tag == "tag:yaml.org,2002:merge"


def _merged(node: yaml.MappingNode) -> list[yaml.Node]:
    """The nodes that `<<` merges into a mapping."""
    values = [value for key, value in node.value if _is_merge(key)]
    return [item for value in values for item in (value.value if isinstance(value, yaml.SequenceNode) else [value])]


def _as_json_number(value: Any) -> Any:
    """Numbers as they arrive at the API server: 3.0 is the integer 3, an integer of more than 64 bits is a float."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value
