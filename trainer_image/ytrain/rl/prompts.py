"""The prompts of a job and the records they come from, which the reward is given."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from ytrain.data.chat import ChatRenderer
from ytrain.data.dataset import TokenDataset
from ytrain.data.formats import normalise
from ytrain.data.reading import DataFile, read_records
from ytrain.data.records import Chat
from ytrain.rl.tree import Ids
from ytrain_api.errors import SpecError


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
    """The prompts of a data set's samples, rendered and encoded by themselves: an answer may share a token with them.

    Args:
        files: format and files (name, path) of each of the job's sources.

    Raises:
        SpecError: a source is read as plain text.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        files: Iterable[tuple[str, Sequence[tuple[str, Path]]]],
        tokenizer: PreTrainedTokenizerFast,
        renderer: ChatRenderer,
        *,
        system_prompt: str | None,
    ) -> None:
        self._dataset = dataset
        self._tokenizer = tokenizer
        self._renderer = renderer
        self._system_prompt = system_prompt
        # As JSON, which takes a fraction of the memory of Python's objects.
        self._records: dict[tuple[str, int], tuple[str, bytes]] = {}
        for format, members in files:
            for name, path in members:
                if format == "text":
                    raise SpecError(
                        f"spec.data.train: {name}: read as plain text, which asks nothing; rl needs chats or "
                        "questions, so leave out format: text"
                    )
                for raw in read_records(DataFile(path, name)):
                    if raw.fault is None:
                        self._records[name, raw.line] = format, json.dumps(raw.value, default=str).encode()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Prompt:
        sample = self._dataset[index]
        format, content = self._records[sample.source, sample.line]
        record = json.loads(content)
        chat = normalise(record, kind="prompt", format=format, system_prompt=self._system_prompt)
        assert isinstance(chat, Chat)
        ids = self._tokenizer(self._renderer.prompt(chat), add_special_tokens=False)["input_ids"]
        return Prompt(
            ids=np.asarray(ids, dtype=np.int32),
            text=str(chat.messages[-2 if chat.messages[-1]["role"] == "assistant" else -1]["content"]),
            record=record,
            place=f"{sample.source}:{sample.line}",
        )
