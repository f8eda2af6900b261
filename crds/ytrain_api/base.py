"""The base of every block of a YTrainJob, and the marks that the CRD needs beside a Python type.

A block is strict, frozen and refuses unknown fields; cross-field rules are data attached to it, which cel.py runs.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Rule:
    """A CEL expression over `self` (and `oldSelf` for an update) that must be true, and what a user reads if it is not.

    `field` names the child that is at fault (such as `.minReplicas`); empty means the node that carries the rule.
    As an annotation of a scalar type (`Annotated[str, RULE]`) the rule sits on that scalar.
    """

    expression: str
    message: str
    field: str = ""

    def as_kubernetes(self) -> dict[str, str]:
        """The rule as an entry of `x-kubernetes-validations`."""
        entry = {"rule": self.expression, "message": self.message}
        return {**entry, "fieldPath": self.field} if self.field else entry

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        schema["x-kubernetes-validations"] = [*schema.get("x-kubernetes-validations", []), self.as_kubernetes()]
        return schema


@dataclass(frozen=True)
class ListType:
    """How server-side apply merges a list: `set` (unique scalars), `map` (objects keyed by `keys`) or `atomic`."""

    kind: str
    keys: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        schema["x-kubernetes-list-type"] = self.kind
        if self.keys:
            schema["x-kubernetes-list-map-keys"] = list(self.keys)
        return schema


@dataclass(frozen=True)
class Wording:
    """What a pattern allows, in words, for messages and the reference (`x-wording` never reaches the CRD)."""

    words: str

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core_schema), "x-wording": self.words}


class Block(BaseModel):
    """A block of the job. Null means absent, as the API server treats null in a field that is not nullable."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict) or None not in data.values():
            return data
        known = {name for field_name, field in cls.model_fields.items() for name in (field_name, field.alias)}
        return {key: value for key, value in data.items() if value is not None or key not in known}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.rules:
            schema["x-kubernetes-validations"] = [rule.as_kubernetes() for rule in cls.rules]
        return schema


CREDENTIAL_PATTERN = (
    "(^|[^A-Za-z0-9])(hf_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{16}|sk-(proj-|ant-[a-z0-9]+-)?[A-Za-z0-9_]{16,})"
)
NO_SECRET = Rule(
    f"!self.matches('{CREDENTIAL_PATTERN}')",
    "this looks like a secret token, and a job's spec can be read by many; "
    "put it into a Secret, name that Secret under spec.secrets and revoke this token",
)

Text = Annotated[str, StringConstraints(max_length=65536), NO_SECRET]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=512), NO_SECRET]
Name = Annotated[
    str,
    StringConstraints(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
    Wording("lower-case letters, digits and hyphens, at most 63"),
]
ModelSource = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^(hf|pvc|s3|file)://.+$"),
    Wording("hf://owner/name, pvc://claim/path, s3://bucket/prefix, file:///path or file://./path"),
    NO_SECRET,
]
DataUri = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^(hf|pvc|s3|file|configmap)://.+$"),
    Wording(
        "configmap://name/key, pvc://claim/path, s3://bucket/prefix, hf://datasets/owner/name, "
        "file:///path or file://./path"
    ),
    NO_SECRET,
]
Target = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^(pvc|s3|file)://.+$"),
    Wording("pvc://claim/path, s3://bucket/prefix, file:///path or file://./path"),
    NO_SECRET,
]
FreeForm = dict[str, Any]
