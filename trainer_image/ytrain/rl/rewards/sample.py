"""What is scored, and what is known of a sample that could not be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one prompt."""

    prompt: str
    answer: str
    record: Mapping[str, Any]
    """The record that the prompt comes from, as the data file has it."""
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample without a reward: it is counted, and is not a reward of zero."""

    reason: str
    """In words shared by all samples with this fault."""
    detail: str = ""
    """What is particular to this sample."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


class Scorer(Protocol):
    """Scores one sample; open until it is closed."""

    at_once: int
    """Samples that may be asked for at the same time."""

    async def score(self, sample: Sample) -> float | Failure:
        """The reward. Raises nothing for what user code or an endpoint does."""
        ...

    async def close(self) -> None:
        """Let go of everything; no process and no connection stays."""
        ...


def written(sample: Sample) -> bytes | Failure:
    """The sample as a line of JSON; what JSON has no type for, such as a date, becomes its text."""
    content = {"prompt": sample.prompt, "answer": sample.answer, "record": sample.record}
    try:
        return json.dumps(content, default=str, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        return Failure("the record cannot be written as JSON", str(error))
