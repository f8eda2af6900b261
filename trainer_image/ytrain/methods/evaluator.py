"""The evaluation of a run as evaluation.json records it: before, during and after training, the same measures."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ytrain.data.chat import ChatRenderer
from ytrain.engine.base import Engine
from ytrain.engine.world import World
from ytrain.evaluation.losses import PerToken, kl_to_start, mean_loss
from ytrain.evaluation.tasks import exact_match
from ytrain.methods.facts import evaluation_status
from ytrain.methods.inputs import Inputs
from ytrain.methods.setup import row_tokens
from ytrain.models.language_model import HiddenStates, LanguageModel
from ytrain.report.live import Progress
from ytrain.training.run_folder import RunFolder, read_json, write_json
from ytrain_api.job import Spec
from ytrain_api.protocol import Facts

KL_SAMPLES, KL_TOKENS = 32, 8192
"""Training samples on which the distance to the start is measured: so many, or the first of so many tokens."""


class Evaluator:
    """Measures a model, keeps the record in the run folder and tells what changed."""

    def __init__(
        self,
        spec: Spec,
        inputs: Inputs,
        model: LanguageModel,
        start: Callable[[], HiddenStates],
        engine: Engine,
        folder: RunFolder,
        world: World,
        progress: Progress,
    ) -> None:
        self._spec = spec
        self._inputs = inputs
        self._model = model
        self._start = start
        self._engine = engine
        self._folder = folder
        self._world = world
        self._progress = progress
        self._rows: dict[str, Any] = {
            "row_tokens": row_tokens(spec),
            "packing": spec.data.packing,
            "world": world,
        }

    def before(self, position: int, total: int) -> None:
        """Measure the start, unless a run that goes on from step `position` of `total` has done so.

        Such a run is measured where it goes on, if that was due there and the stop came first.
        """
        if not self._world.agree(self._folder.evaluation.is_file()):
            self._write(before=self._measure(0), history=[])
        elif self._world.leads:
            self._tell(read_json(self._folder.evaluation))
        if self._world.agree(self._missing(position, total)):
            self.during(position)

    def during(self, step: int) -> None:
        """Measure at a step in the middle; a step measured before a resume is replaced."""
        measured = self._measure(step)
        if self._world.leads:
            record = read_json(self._folder.evaluation)
            history = [entry for entry in record["history"] if entry["step"] < step]
            self._write(before=record["before"], history=[*history, measured])

    def after(self, step: int) -> None:
        """Measure the end."""
        measured = self._measure(step)
        if self._world.leads:
            record = read_json(self._folder.evaluation)
            self._write(before=record["before"], history=record["history"], after=measured)

    def _missing(self, step: int, total: int) -> bool:
        every = self._spec.evaluation.every_steps
        if not self._world.leads or not every or step % every or not 0 < step < total:
            return False
        return all(entry["step"] != step for entry in read_json(self._folder.evaluation)["history"])

    def _write(self, **record: Any) -> None:
        if self._world.leads:
            write_json(self._folder.evaluation, record)
            self._tell(record)

    def _tell(self, record: dict[str, Any]) -> None:
        self._progress.found(Facts(evaluation=evaluation_status(record)))

    def _measure(self, step: int) -> dict[str, Any]:
        with self._engine.whole():
            return self._figures(step)

    def _figures(self, step: int) -> dict[str, Any]:
        model, inputs = self._model, self._inputs
        stop_ids = stop_tokens(self._spec, inputs)
        return {
            "step": step,
            "validation": _entry("loss", mean_loss(model, inputs.validation.dataset, **self._rows))
            if inputs.validation
            else None,
            "retention": [
                {"name": name, **_entry("loss", mean_loss(model, data.dataset, **self._rows))}
                for name, data in inputs.retention.items()
            ],
            "tasks": [
                exact_match(model, inputs.tokenizer, task, stop_ids=stop_ids, world=self._world)
                for task in inputs.tasks
            ],
            "klToStart": self._drift() if step else _entry("value", PerToken(0.0, 0)),
        }

    def _drift(self) -> dict[str, Any] | None:
        """Over answers of the training data; None where it has none, as it may with rl."""
        dataset = self._inputs.train.dataset
        chosen = np.random.default_rng(self._spec.optimization.seed).permutation(len(dataset))[:KL_SAMPLES]
        chosen = chosen[dataset.supervised_counts[chosen] > 0]
        if not len(chosen):
            return None
        within = np.cumsum(dataset.lengths[chosen]) <= KL_TOKENS
        chosen = chosen[: max(1, int(within.sum()))]
        return _entry("value", kl_to_start(self._model, self._start(), dataset, chosen.tolist(), **self._rows))


def stop_tokens(spec: Spec, inputs: Inputs) -> list[int]:
    """Tokens that end an answer: the tokenizer's end of sequence, and what the chat template closes a turn with."""
    tokenizer, dataset = inputs.tokenizer, inputs.train.dataset
    samples = [dataset[i] for i in range(min(8, len(dataset)))]
    closing = {int(sample.input_ids[sample.supervised][-1]) for sample in samples if sample.supervised.any()}
    if not closing:  # prompts without an answer
        text = ChatRenderer(tokenizer, None, spec.data.chat_template_args).answered()
        closing = {tokenizer(text, add_special_tokens=False)["input_ids"][-1]}
    special = closing & {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    end = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    return sorted(special | end)


def _entry(key: str, mean: PerToken) -> dict[str, Any]:
    return {key: mean.value, "tokens": mean.tokens}
