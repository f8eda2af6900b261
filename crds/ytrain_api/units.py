"""Durations and quantities, written as Kubernetes writes them (`15m`, `100Gi`) and read as seconds and bytes."""

import re
from decimal import Decimal
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ytrain_api.base import Rule

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Six digits a unit keep a duration within 292 years, the most that CEL's duration() takes in the API server.
_SPAN = "".join(rf"([0-9]{{1,6}}(\.[0-9]{{1,6}})?{unit})?" for unit in ("h", "m", "s", "ms"))
_BYTES = {"": 1, **{unit: 1000**i for i, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)}}
_BYTES |= {unit: 1024**i for i, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}


class _Written(str):
    """A text with a value: it stays as the user wrote it, so that a dumped job equals the file."""

    __slots__ = ()
    pattern: ClassVar[str]
    min_length: ClassVar[int] = 2
    wording: ClassVar[str]
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls.pattern, min_length=cls.min_length, max_length=32)
        return core_schema.no_info_after_validator_function(cls._from_text, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = {**handler(schema), "x-wording": cls.wording}
        if cls.rules:
            written["x-kubernetes-validations"] = [rule.as_kubernetes() for rule in cls.rules]
        return written

    @classmethod
    def _from_text(cls, text: str) -> Self:
        return cls(text)


class Duration(_Written):
    """A time span such as `90s`, `15m` or `1h30m`."""

    __slots__ = ()
    pattern = f"^{_SPAN}$"
    wording = "a duration such as 90s, 15m or 1h30m"
    rules = (Rule("duration(self) > duration('0s')", "a duration is longer than zero, such as 90s, 15m or 1h30m"),)

    @property
    def seconds(self) -> float:
        return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", self))


class AutoDuration(_Written):
    """A time span, or `auto`."""

    __slots__ = ()
    wording = "auto, or a duration such as 90s, 15m or 1h30m"
    pattern = f"^(auto|{_SPAN})$"
    rules = (
        Rule("self == 'auto' || duration(self) > duration('0s')", "auto, or a duration longer than zero such as 10m"),
    )

    @property
    def seconds(self) -> float | None:
        """Seconds; None for `auto`."""
        return None if self == "auto" else Duration(self).seconds


class Quantity(_Written):
    """A size such as `100Gi` or `500M`, in bytes."""

    __slots__ = ()
    wording = "a size such as 100Gi or 500M"
    min_length = 1
    pattern = r"^[0-9]{1,15}(\.[0-9]{1,9})?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"

    @property
    def bytes(self) -> int:
        unit = self.lstrip("0123456789.")
        return int(Decimal(self.removesuffix(unit)) * _BYTES[unit])
