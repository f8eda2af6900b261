"""Brings function calls and schemas to the form that chat templates are written for, and that servers hand to them.

OpenAI's format writes a call's arguments as JSON text; a template that expects an object would teach to quote it.
"""

import json
from collections.abc import Mapping
from typing import Any

from ytrain.data.records import Unusable


def calls(value: object, where: str) -> list[dict[str, Any]]:
    """The calls of one turn, a list or JSON text of one, each with its arguments as an object.

    Raises:
        Unusable: they are none.
    """
    value = decoded(value, f"the calls of {where}")
    return [_call(call, where) for call in ([value] if isinstance(value, dict) else _objects(value, where))]


def schemas(value: object) -> tuple[dict[str, Any], ...]:
    """The functions that may be called, a list or JSON text of one, each as `{type: function, function: {name: ...}}`.

    Raises:
        Unusable: they are none.
    """
    value = decoded(value, "tools")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise Unusable("tools is not a list of function schemas", f"found {type(value).__name__}")
    return tuple({"type": "function", "function": tool} if "name" in tool else tool for tool in value)


def decoded(value: object, what: str) -> Any:
    """A value, or what it says where it is JSON text, as tables and columnar files hold nested values; '' is None."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:
        raise Unusable("not JSON", f"{what}: {error}") from error


def _call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable("a function call without name", where)
    arguments = decoded(function.get("arguments"), f"the arguments of a call in {where}")
    if not isinstance(arguments, dict | None):
        raise Unusable("the arguments of a function call are not an object", f"{where}: {type(arguments).__name__}")
    outer = call if "function" in call else {"type": "function"}
    return {**outer, "function": {**function, "arguments": arguments or {}}}


def _objects(value: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(call, dict) for call in value):
        raise Unusable("tool_calls is not a list of function calls", where)
    return value
