"""Opens what reinforcement learning needs beside a model: prompts, reward, and what samples answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ytrain.data.chat import ChatRenderer
from ytrain.data.reading import SUFFIXES
from ytrain.engine.base import Engine
from ytrain.engine.world import World
from ytrain.methods.evaluator import stop_tokens
from ytrain.methods.inputs import Inputs
from ytrain.methods.setup import Models, plan, row_tokens
from ytrain.models.probe import rescaled_beyond
from ytrain.objective.weights import nlirg
from ytrain.report.live import Progress
from ytrain.rl.credit import Group
from ytrain.rl.learner import PolicyLearner
from ytrain.rl.prompts import Prompt, Prompts
from ytrain.rl.rewards import Failure, Sample, open_rewards
from ytrain.rl.rollout import RolloutEngine
from ytrain.rl.sampler import TransformersRollout
from ytrain.rl.samples import write_samples
from ytrain.rl.vllm.rollout import vllm_rollout
from ytrain.rl.watch import Watch
from ytrain.training.plan import Step
from ytrain.training.run_folder import RunFolder
from ytrain_api.errors import SpecError
from ytrain_api.job import Spec
from ytrain_api.rl import Objective, Rl

SHOWN_STEPS = 20
"""Steps of a run of which a sample tree is kept for the report."""


@contextmanager
def policy_learner(
    spec: Spec, inputs: Inputs, models: Models, moves: Engine, folder: RunFolder, world: World, progress: Progress
) -> Iterator[PolicyLearner]:
    """The learner of the job, its reward open.

    Raises:
        SpecError: the reward or the engine cannot be opened, or the model cannot answer these prompts.
    """
    rl = spec.rl
    assert rl is not None
    stop_ids = stop_tokens(spec, inputs)
    _check(spec, inputs, models, stop_ids)
    models.current.disable_dropout()  # answers are sampled without it
    steps = plan(spec, inputs.train.dataset)
    shown_every = max(1, steps.total_steps // SHOWN_STEPS)
    tokenizer = inputs.tokenizer

    def keep(step: Step, prompt: Prompt, group: Group) -> None:
        if step.number == 1 or step.number % shown_every == 0:
            write_samples(folder.samples, step.number, prompt, group, tokenizer)

    def decode(ids: np.ndarray) -> str:
        return str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    with (
        open_rewards(rl.reward, inputs.sources, beat=progress.beat) as rewards,
        _rollout(rl, inputs, models, moves, stop_ids, folder, world, progress) as rollout,
    ):
        yield PolicyLearner(
            model=models.current,
            engine=moves,
            world=world,
            plan=steps,
            prompts=_prompts(spec, inputs),
            rollout=rollout,
            rewards=rewards,
            settings=_settled(rl),
            gate=nlirg() if rl.objective.gate == "nlirg" else None,
            temperature=rl.rollout.temperature,
            updates=rl.rollout.updates,
            row_tokens=row_tokens(spec),
            seed=spec.optimization.seed,
            decode=decode,
            start=models.start() if spec.model.lora or rl.objective.base_anchor else None,
            watch=Watch(
                world=world, note=progress.note if world.leads else lambda _: None, total_steps=steps.total_steps
            ),
            keep=keep,
        )


@contextmanager
def _rollout(
    rl: Rl,
    inputs: Inputs,
    models: Models,
    moves: Engine,
    stop_ids: list[int],
    folder: RunFolder,
    world: World,
    progress: Progress,
) -> Iterator[RolloutEngine]:
    """What samples; where that is a process, it ends with the block."""
    if rl.rollout.engine == "transformers":
        yield TransformersRollout(models.current, rl.rollout, rl.tree, stop_ids, whole=moves.whole, beat=progress.beat)
        return
    progress.phase("starting vLLM")
    with vllm_rollout(
        models.current,
        inputs.model.path,
        rl.rollout,
        rl.tree,
        stop_ids,
        max_tokens=_longest(rl, inputs),
        folder=folder.vllm / f"rank-{world.rank}",
        whole=moves.whole,
    ) as rollout:
        yield rollout


def own_answers_scored(spec: Spec, inputs: Inputs, indices: Sequence[int]) -> list[float | Failure]:
    """What the reward gives for the answers that the records themselves have, or for an empty one where they have none.

    Raises:
        SpecError: the reward cannot be opened.
    """
    assert spec.rl is not None
    prompts, samples = _prompts(spec, inputs), []
    for index in indices:
        prompt, sample = prompts[index], inputs.train.dataset[index]
        answer = sample.input_ids[sample.supervised]
        text = str(inputs.tokenizer.decode(answer.tolist(), skip_special_tokens=True))
        samples.append(Sample(prompt.text, text, prompt.record, len(answer)))
    with open_rewards(spec.rl.reward, inputs.sources, processes=1) as rewards:
        return rewards.score(samples)


def _prompts(spec: Spec, inputs: Inputs) -> Prompts:
    files = [(entry.format, inputs.sources.files(entry.source, SUFFIXES).files) for entry in spec.data.train]
    renderer = ChatRenderer(inputs.tokenizer, None, spec.data.chat_template_args)
    return Prompts(inputs.train.dataset, files, inputs.tokenizer, renderer, system_prompt=spec.data.system_prompt)


def _settled(rl: Rl) -> Objective:
    if rl.objective.advantage != "auto":
        return rl.objective
    return rl.objective.model_copy(update={"advantage": "tree" if rl.tree is not None else "grpo"})


def _longest(rl: Rl, inputs: Inputs) -> int:
    """Tokens of the longest prompt with the longest answer."""
    return inputs.train.dataset.longest_prompt + rl.rollout.max_new_tokens


def _check(spec: Spec, inputs: Inputs, models: Models, stop_ids: list[int]) -> None:
    rl = spec.rl
    assert rl is not None
    if not stop_ids:
        raise SpecError(
            "spec.model.source: the tokenizer has no end-of-sequence token and the chat template closes an answer with "
            "none, so no answer would end; name one as eos_token in the model's tokenizer_config.json"
        )
    config = models.current.module.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if layers or getattr(models.current.module, "_is_stateful", False):
        raise SpecError(
            f"spec.model.source: {type(models.current.module).__name__} has layers that are no attention over all "
            f"tokens{f' ({min(layers)})' if layers else ''}; rl, which lays answers out as a tree, cannot train it"
        )
    longest = _longest(rl, inputs)
    positions, window = getattr(config, "max_position_embeddings", None), getattr(config, "sliding_window", None)
    if positions is not None and longest > positions:
        raise SpecError(
            f"spec.rl.rollout.maxNewTokens: {rl.rollout.max_new_tokens}: with the longest prompt that makes {longest} "
            f"tokens, and the model has {positions} positions; take {positions - longest + rl.rollout.max_new_tokens} "
            "or fewer, or leave out long prompts with data.maxTokens"
        )
    if (limit := rescaled_beyond(config)) is not None and longest > limit:
        raise SpecError(
            f"spec.rl.rollout.maxNewTokens: {rl.rollout.max_new_tokens}: with the longest prompt that makes {longest} "
            f"tokens, and beyond {limit} the model scales all positions otherwise, which rl does not support"
        )
    if window is not None and longest > window:
        raise SpecError(
            f"spec.rl.rollout.maxNewTokens: {rl.rollout.max_new_tokens}: with the longest prompt that makes {longest} "
            f"tokens, more than the model's sliding window of {window}, which rl does not support"
        )
