"""One fault of a job file, written for a person: where, which value, what is allowed, what to do."""

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from ytrain_api.base import CREDENTIAL_PATTERN

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """A fault at `path` of the document; `value` is shown when it helps."""

    NO_VALUE: ClassVar[Any] = object()

    path: Path
    message: str
    value: Any = NO_VALUE

    def __str__(self) -> str:
        shown = "" if self.value is Finding.NO_VALUE else f"{shortened(self.value)}: "
        return f"{dotted(self.path)}: {shown}{self.message}" if self.path else f"{shown}{self.message}"


def dotted(path: Path) -> str:
    """`("spec", "data", "train", 0, "source")` as `spec.data.train[0].source`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def shortened(value: Any) -> str:
    """A value in one line of readable length; what looks like a secret is masked, for messages end up in logs."""
    text = re.sub(CREDENTIAL_PATTERN, r"\1***", json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:57]}..."
