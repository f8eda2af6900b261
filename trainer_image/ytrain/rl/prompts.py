"""The prompts of a job and the records they come from, which the reward is given."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ytrain.data.dataset import TokenDataset
from ytrain.data.formats import normalise
from ytrain.data.reading import DataFile, read_records
from ytrain.data.records import Chat, Unusable
from ytrain.rl.tree import Ids


@dataclass(frozen=True)
class Prompt:
    """What is answered."""

    ids: Ids
    """The conversation up to the answer, as the chat template renders it."""
    text: str
    """The last message before the answer."""
    record: dict[str, Any]
    place: str


class Prompts:
    """The prompts of a data set, each sample's tokens up to its first label.

    Args:
        files: format and files (name, path) of each of the job's sources.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        files: Iterable[tuple[str, Sequence[tuple[str, Path]]]],
        *,
        system_prompt: str | None,
    ) -> None:
        self._dataset = dataset
        # As JSON, which takes a fraction of the memory of Python's objects.
        self._records: dict[tuple[str, int], tuple[str, bytes]] = {}
        for format, members in files:
            for name, path in members:
                for raw in read_records(DataFile(path, name)):
                    try:
                        chat = normalise(raw.value, kind="chat", format=format, system_prompt=system_prompt)
                    except Unusable:
                        continue  # skipped and counted when it was tokenised
                    assert isinstance(chat, Chat)
                    if len(chat.messages) < 2:
                        continue
                    content = json.dumps(raw.value, default=str, ensure_ascii=False).encode()
                    self._records[name, raw.line] = (str(chat.messages[-2]["content"]), content)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Prompt:
        sample = self._dataset[index]
        first_label = int(np.flatnonzero(sample.supervised)[0])
        text, record = self._records[sample.source, sample.line]
        return Prompt(
            ids=sample.input_ids[:first_label],
            text=text,
            record=json.loads(record),
            place=f"{sample.source}:{sample.line}",
        )
