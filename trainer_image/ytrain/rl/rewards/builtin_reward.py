"""Opens a ready-made reward: its functions run in reward processes as a user's do, because a pattern may never end."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ytrain.data.formats import normalise
from ytrain.data.records import Chat, Unusable
from ytrain.rl.rewards.processes import ProcessScorer
from ytrain.rl.rewards.sample import Failure, Sample
from ytrain_api.errors import SpecError
from ytrain_api.rl import BuiltinReward

FIELD = "spec.rl.reward.builtin"
CALL_SECONDS = 10.0
AGAINST_THE_RECORD = ("exact", "numeric")


async def opened(reward: BuiltinReward, processes: int) -> "BuiltinScorer":
    """Raises:
    SpecError: the pattern or the schema is none.
    """
    if reward.pattern is not None:
        try:
            re.compile(reward.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise SpecError(f"{FIELD}.pattern: {reward.pattern!r} is no regular expression: {error}") from error
    if reward.json_schema is not None:
        import jsonschema

        try:
            jsonschema.Draft202012Validator.check_schema(reward.json_schema)
        except jsonschema.SchemaError as error:
            raise SpecError(f"{FIELD}.jsonSchema: no JSON Schema: {error.message} at {error.json_path}") from error
    scorer = await ProcessScorer.opened(
        Path(__file__).with_name("builtin.py"), reward.kind, seconds=CALL_SECONDS, processes=processes, where=FIELD
    )
    return BuiltinScorer(reward, scorer)


class BuiltinScorer:
    """Gives the functions of `builtin.py` what they need as their record."""

    def __init__(self, reward: BuiltinReward, scorer: ProcessScorer) -> None:
        self.at_once = scorer.at_once
        self._reward, self._scorer = reward, scorer
        self._settings = reward.model_dump(mode="json", by_alias=True, exclude_none=True)

    async def score(self, sample: Sample) -> float | Failure:
        """See `Scorer`."""
        record = {**self._settings, "answerTokens": sample.answer_tokens}
        if self._reward.kind in AGAINST_THE_RECORD:
            expected = expected_answer(sample.record)
            if expected is None:
                return Failure(
                    f"{self._reward.kind} needs an answer in the record", f"keys: {', '.join(sample.record)}"
                )
            record["expected"] = expected
        return await self._scorer.score(replace(sample, record=record))

    async def close(self) -> None:
        """See `Scorer`."""
        await self._scorer.close()


def expected_answer(record: Mapping[str, Any]) -> str | None:
    """The record's own answer: under the key `answer`, else the last turn of the assistant; None without any."""
    answer = record.get("answer")
    if isinstance(answer, str | int | float) and not isinstance(answer, bool):
        return str(answer)
    try:
        chat = normalise(dict(record), kind="chat")
    except Unusable:
        return None
    assert isinstance(chat, Chat)
    last = chat.messages[-1]
    return str(last["content"]) if last["role"] == "assistant" else None
