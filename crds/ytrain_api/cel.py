"""Runs the contract's CEL rules on a laptop, over the same schema and in the same order as the API server does.

The rules are written beside the models (base.Rule), in the core language only: Kubernetes' extensions are not here.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from cel_expr_python import cel

from ytrain_api.finding import Finding, Path
from ytrain_api.schema import Schema

_ABSENT = object()


class RuleError(Exception):
    """A rule could not be evaluated on these values."""


@cache
def _compiled(expression: str) -> Any:
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}).compile(expression)


def holds(expression: str, value: Any, old: Any = None) -> bool:
    """Whether a rule is true for `self = value` and `oldSelf = old`.

    Raises RuleError when the values have types that the expression does not take.
    """
    verdict = _compiled(expression).eval(data={"self": value, "oldSelf": old}).plain_value()
    if not isinstance(verdict, bool):
        raise RuleError(f"{expression}: {verdict}")
    return verdict


def check_rules(
    schema: Schema, value: Any, old: Any = _ABSENT, path: Path = (), *, types_are_right: bool = True
) -> Iterator[Finding]:
    """Findings of every rule of `schema` that `value` breaks; rules on `oldSelf` run when an old value is given.

    `value` has its defaults filled in. A rule that cannot be evaluated counts as broken, as in the API server, unless
    some value is known to have a wrong type, which is a finding of its own.
    """
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"] and old is _ABSENT:
            continue
        try:
            broken = not holds(rule["rule"], value, old)
        except RuleError:
            broken = types_are_right
        if broken:
            yield Finding(
                _field(path, rule.get("fieldPath", "")), rule["message"], _at(value, rule.get("fieldPath", ""))
            )
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name, _ABSENT) if isinstance(old, dict) else _ABSENT
                yield from check_rules(child, value[name], before, (*path, name), types_are_right=types_are_right)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from check_rules(schema["items"], item, path=(*path, index), types_are_right=types_are_right)


def _field(path: Path, field: str) -> Path:
    return (*path, *(name for name in field.split(".") if name))


def _at(value: Any, field: str) -> Any:
    """The value at `field` below `value`; nothing when the rule is about the whole node or about an absent field."""
    if not field:
        return Finding.NO_VALUE
    for name in field.strip(".").split("."):
        if not isinstance(value, dict) or name not in value:
            return Finding.NO_VALUE
        value = value[name]
    return Finding.NO_VALUE if isinstance(value, dict | list) else value
