"""Collects what is wrong with a job, so that one fault does not hide the next."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ytrain_api.errors import YTrainError

Result = TypeVar("Result")


@dataclass
class Findings:
    """Messages of failures that a user can mend, each once, in the order of their discovery."""

    messages: list[str] = field(default_factory=list)

    def attempt(self, action: Callable[[], Result], where: str = "") -> Result | None:
        """What `action` returns; None if it fails, the failure being noted as one of the field `where`."""
        try:
            return action()
        except YTrainError as error:
            for message in split_messages(error):
                self.add(f"{where}: {message}" if where and not message.startswith(where) else message)
            return None

    def add(self, message: str) -> None:
        """Note a fault, unless it is noted already."""
        if message not in self.messages:
            self.messages.append(message)


def split_messages(error: YTrainError) -> list[str]:
    """The faults in a message: one a line; an indented line belongs to the one before."""
    return re.split(r"\n(?! )", str(error))
