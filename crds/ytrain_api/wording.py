"""Says in words what a field takes and what is wrong with a value, where pydantic names no field and no next step."""

from typing import Any

from pydantic_core import ErrorDetails

from ytrain_api.finding import Finding, Path
from ytrain_api.schema import Schema


def in_words(schema: Schema, fault: ErrorDetails) -> Finding:
    """A fault that pydantic found, said with the field's path, its value and what the schema allows there."""
    path: Path = fault["loc"]
    value = fault["input"]
    node = _node(schema, path)
    if fault["type"] == "missing":
        return Finding(path, f"missing; add it: {_least(node)}")
    if isinstance(value, dict | list):
        return Finding(path, f"{_mistake(node, value)}; allowed is {allowed(node)}")
    return Finding(path, f"{_mistake(node, value)}; allowed is {allowed(node)}", value)


def allowed(schema: Schema) -> str:
    """What a field takes, in words: `a whole number from 1 to 1024`, `one of skip, truncate, split`."""
    if "enum" in schema:
        return f"only {schema['enum'][0]}" if len(schema["enum"]) == 1 else "one of " + ", ".join(schema["enum"])
    if "x-wording" in schema:
        return str(schema["x-wording"])
    match schema["type"]:
        case "integer" | "number":
            return ("a whole number" if schema["type"] == "integer" else "a number") + _range(schema)
        case "array":
            return f"a list{_count(schema)}, each {allowed(schema['items'])}"
        case "string":
            return f"text of at most {schema['maxLength']} characters" if "maxLength" in schema else "text"
        case "boolean":
            return "true or false"
    fields = ", ".join(schema.get("properties", {}))
    return f"a block with the fields {fields}" if fields else "a block of fields"


def _least(schema: Schema) -> str:
    """What is to be written where nothing is: of a block the fields that it needs, if it needs any."""
    needed = ", ".join(schema.get("required", ()))
    return f"a block with at least {needed}" if needed else allowed(schema)


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = "exclusiveMinimum" in schema, "exclusiveMaximum" in schema
    if low is not None and high is not None and not above and not below:
        return f" from {_number(low)} to {_number(high)}"
    parts = []
    if low is not None:
        parts.append(f"above {_number(low)}" if above else f"of at least {_number(low)}")
    if high is not None:
        parts.append(f"below {_number(high)}" if below else f"at most {_number(high)}")
    return " " + " and ".join(parts) if parts else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _count(schema: Schema) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if high is None:
        return ""
    return f" of {low} to {high} entries" if low else f" of at most {high} entries"


def _node(schema: Schema, path: Path) -> Schema:
    for part in path:
        properties = schema.get("properties", {})
        schema = schema["items"] if isinstance(part, int) else properties.get(part) or schema["additionalProperties"]
    return schema


def _mistake(node: Schema, value: Any) -> str:
    """What is wrong with a value, and the usual reason."""
    wanted = node["type"]
    if wanted == "array" and not isinstance(value, list):
        return f"not a list; write [{_entry(node['items'], value)}]" if isinstance(value, str) else "not a list"
    if wanted == "object" and isinstance(value, str):
        entry = _entry(node, value)
        return "this is text" + (f"; write {entry}" if entry != value else "")
    if wanted == "object" or isinstance(value, dict):
        return f"this is {_kind_of(value)}"
    if isinstance(value, list):
        return f"this is a list of {len(value)} entries" if wanted == "array" else "this is a list"
    if isinstance(value, str) and wanted in ("integer", "number", "boolean"):
        return "this is text; write the value without quotes" if _is_plain(value) else "this is text"
    if not isinstance(value, str) and wanted == "string":
        return f"this is {_kind_of(value)}, not text; put it in quotes"
    if isinstance(value, bool):
        return "this is true or false, not a number"
    if wanted == "integer" and isinstance(value, float):
        return "not a whole number"
    if isinstance(value, str) and value.startswith(("/", ".")) and "file://./" in allowed(node):
        return f"a path alone; write file://{value if value.startswith('/') else './' + value.removeprefix('./')}"
    return "not allowed"


def _entry(node: Schema, text: str) -> str:
    """A text as it is written where a block of one needed field is wanted, such as a source among sources."""
    needed = node.get("required", ())
    return f'{{{needed[0]}: "{text}"}}' if len(needed) == 1 else text


def _is_plain(text: str) -> bool:
    """Whether a text would be a number or a truth value without its quotes."""
    if text in ("true", "false"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _kind_of(value: Any) -> str:
    match value:
        case bool():
            return "true or false"
        case dict():
            return "a block of fields"
        case list():
            return "a list"
        case str():
            return "text"
        case None:
            return "empty"
    return "a number"
