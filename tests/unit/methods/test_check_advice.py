"""Warnings about what is allowed and probably not meant: their words, and values that are never above the present."""

import json
from typing import Any

import pytest
import yaml
from tests.conftest import write_chats

from ytrain.methods.advice import (
    absent_secrets,
    few_steps,
    fields_without_effect,
    no_reward,
    power_of_two_below,
    too_much_memory,
)
from ytrain.methods.forecast import Course, FirstStep, Memory
from ytrain.methods.memory import MemoryNeed, Remedy, remedies
from ytrain.methods.setup import row_tokens
from ytrain.models.estimate import MemoryEstimate
from ytrain_api import dump_job, load_job
from ytrain_api.job import Spec

pytestmark = pytest.mark.unit

GIB = 2**30


@pytest.mark.parametrize(
    ("optimization", "words"),
    [
        ({}, "3 steps in all: lower optimization.batchTokens (now 65536), such as to 64, or raise optimization.epochs"),
        ({"batchSequences": 20}, "3 steps in all: lower optimization.batchSequences (now 20), such as to 1, or raise"),
        ({"batchSequences": 1, "maxSteps": 1}, "1 step in all, by optimization.maxSteps: enough to try"),
    ],
)
def test_few_steps(place: Any, optimization: dict[str, Any], words: str) -> None:
    (warning,) = place.check(optimization=optimization).warnings
    assert warning.startswith(words)


def test_a_batch_of_one_sample_cannot_be_lowered(place: Any) -> None:
    write_chats(place.folder / "chats.jsonl", 2)
    (warning,) = place.check(optimization={"batchSequences": 1}).warnings
    assert warning == "6 steps in all: raise optimization.epochs (now 3), or give more data"


def test_few_windows(place: Any) -> None:
    write_chats(place.folder / "chats.jsonl", 1)
    (warning,) = place.check(sft={"window": {"tokens": 100}}, optimization={}).warnings
    assert warning == "3 steps in all: raise optimization.epochs (now 3), or give more data"


def test_ten_steps_are_no_warning(place: Any) -> None:
    spec = load_job(place.write()).job.spec
    first = FirstStep(samples=1, tokens=1, rows=1)
    rate = {"learning_rate": 1, "learning_rate_is_default": False}
    course = Course(steps=10, epochs=3, samples_per_step=1, **rate, first=first, filling=None)
    assert few_steps(spec, place.check().data, course) is None


RL = {"reward": {"builtin": {"kind": "exact"}}}
NO_STEPS = "a corpus job updates no weights; remove"
OWN_STEPS = "rl.rollout.promptsPerStep makes a step; remove"
WINDOWS = "with sft.window every few answer tokens of a sample make a step; remove"


@pytest.mark.parametrize(
    ("method", "blocks", "words"),
    [
        ({"rl": RL}, {"optimization": {"batchTokens": 4096}}, f"optimization.batchTokens: ignored, {OWN_STEPS} it"),
        ({"rl": RL}, {"optimization": {"batchSequences": 8}}, f"optimization.batchSequences: ignored, {OWN_STEPS} it"),
        ({"rl": RL}, {"optimization": {"learningRate": 1e-4, "epochs": 2, "microBatchTokens": 512}}, None),
        (
            {"corpus": {}},
            {"optimization": {"learningRate": 1e-4, "epochs": 2, "batchSequences": 8, "microBatchTokens": 512}},
            f"optimization.learningRate, optimization.epochs, optimization.batchSequences: ignored, {NO_STEPS} them",
        ),
        (
            {"corpus": {}},
            {"checkpoint": {"everySteps": 5}, "evaluation": {"everySteps": 5}},
            f"evaluation.everySteps, checkpoint.everySteps: ignored, {NO_STEPS} them",
        ),
        (
            {"corpus": {}},
            {"model": {"gradientCheckpointing": True, "precision": "float32"}},
            f"model.gradientCheckpointing: ignored, {NO_STEPS} it",
        ),
        ({"corpus": {}}, {}, None),
        (
            {"sft": {"window": {"tokens": 8}}},
            {"optimization": {"batchSequences": 8, "learningRate": 1e-4}},
            f"optimization.batchSequences: ignored, {WINDOWS} it",
        ),
        ({"sft": {}}, {"optimization": {"batchTokens": 4096}, "checkpoint": {"everySteps": 5}}, None),
        ({"cpt": {}}, {"optimization": {"batchSequences": 8}, "evaluation": {"everySteps": 5}}, None),
    ],
)
def test_fields_that_say_nothing_with_a_method(
    place: Any, method: dict[str, Any], blocks: dict[str, Any], words: str | None
) -> None:
    spec = {"sft": None, "optimization": {}} | method | blocks
    spec["model"] = place.job["spec"]["model"] | blocks.get("model", {})
    job = load_job(place.write(**spec)).job
    assert fields_without_effect(job.spec) == words
    place.file.write_text(dump_job(job))
    assert fields_without_effect(load_job(place.file).job.spec) == words


def test_a_field_that_says_nothing_is_told_with_the_other_warnings(place: Any) -> None:
    ignored, few_records = place.check(sft=None, corpus={}).warnings
    assert ignored.startswith("optimization.batchSequences: ignored") and few_records.startswith("20 records")


OPEN_ENDED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Like GLM-4's, it writes nothing behind an answer."""


def test_a_template_that_does_not_close_answers(place: Any) -> None:
    data = place.job["spec"]["data"] | {"chatTemplate": OPEN_ENDED}
    few = {"optimization": {"batchSequences": 1}}
    (warning,) = place.check(data=data, **few).warnings
    assert warning.startswith("no answer shown ends with a special token") and "data.chatTemplate" in warning
    assert not place.check(**few).warnings
    learned_by_reward = place.check(data=data, sft=None, rl=RL, optimization={}).warnings
    assert not any("special token" in warning for warning in learned_by_reward)


def test_answers_that_were_cut_off_say_nothing_of_the_template(place: Any) -> None:
    long = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "so " * 40}]}] * 12
    (place.folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in long))
    cut = place.job["spec"]["data"] | {"maxTokens": 64, "overlong": "truncate"}
    check = place.check(data=cut, optimization={"batchSequences": 1})
    assert check.data and (check.data.used, check.data.truncated) == (12, 12)
    assert not check.warnings


@pytest.mark.parametrize(
    ("named", "beside", "words"),
    [
        ([], [], None),
        (["hub"], ["hub"], None),
        (["hub", "team-bucket"], ["hub"], "spec.secrets: team-bucket is not in the job file; what it holds is taken"),
        (["hub", "team-bucket"], [], "spec.secrets: hub, team-bucket are not in the job file; what they hold is taken"),
    ],
)
def test_secrets_that_only_a_cluster_has(place: Any, named: list[str], beside: list[str], words: str | None) -> None:
    place.write(secrets=named)
    secrets = [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {}} for name in beside]
    place.file.write_text(yaml.safe_dump_all([*secrets, *yaml.safe_load_all(place.file.read_text())]))
    warning = absent_secrets(load_job(place.file))
    assert warning is None if words is None else warning is not None and warning.startswith(words)


@pytest.mark.parametrize(("number", "power"), [(0, 1), (1, 1), (5, 4), (64, 64), (127, 64)])
def test_power_of_two_below(number: int, power: int) -> None:
    assert power_of_two_below(number) == power


def memory(total: int, available: int, remedies: list[Remedy]) -> Memory:
    estimate = MemoryEstimate(weights=total, gradients=0, optimizer=0, activations=0, head=0, backward=0)
    return Memory(
        need=MemoryNeed(estimate=estimate, frozen_models=0, between_steps=0, checkpoint_copies=0),
        available=available,
        remedies=remedies,
    )


@pytest.mark.parametrize(
    ("remedies", "words"),
    [
        ([], "needs about 9.00 GiB, this machine has 4.00 GiB; take a smaller model or a larger machine"),
        (
            [Remedy("a: 1", 5 * GIB), Remedy("b: 2", 3 * GIB), Remedy("a: 1 and b: 2", 2 * GIB)],
            "needs about 9.00 GiB, this machine has 4.00 GiB; fits with b: 2 (3.00 GiB) or with a: 1 and b: 2 "
            "(2.00 GiB)",
        ),
        (
            [Remedy("a: 1", 5 * GIB)],
            "needs about 9.00 GiB, this machine has 4.00 GiB; a: 1 would need 5.00 GiB: take a smaller model or a "
            "larger machine",
        ),
    ],
)
def test_too_much_memory(remedies: list[Remedy], words: str) -> None:
    assert too_much_memory(memory(9 * GIB, 4 * GIB, remedies)) == words


def test_memory_that_fits_is_no_warning() -> None:
    assert too_much_memory(memory(4 * GIB, 4 * GIB, [])) is None


DONE = {"lora": {}, "gradientCheckpointing": True}


@pytest.mark.parametrize(
    ("model", "data", "optimization", "changes"),
    [
        ({}, {}, {}, {"data.maxTokens: 100", "model.gradientCheckpointing: true", "model.lora: {}"}),
        ({"lora": {}}, {}, {}, {"data.maxTokens: 100", "model.gradientCheckpointing: true"}),
        (DONE, {}, {}, {"data.maxTokens: 100"}),
        (DONE, {}, {"microBatchTokens": 512}, {"data.maxTokens: 100 with optimization.microBatchTokens: 100"}),
        (DONE, {"maxTokens": 100}, {"microBatchTokens": 512}, {"optimization.microBatchTokens: 100"}),
        (DONE, {"maxTokens": 100}, {}, set()),
        (DONE, {"packing": False}, {}, set()),
    ],
)
def test_only_what_is_not_done_yet_is_proposed(
    place: Any, model: dict[str, Any], data: dict[str, Any], optimization: dict[str, Any], changes: set[str]
) -> None:
    blocks = {"model": model, "data": data, "optimization": optimization}
    spec = load_job(place.write(**{name: place.job["spec"][name] | block for name, block in blocks.items()})).job.spec

    def need(changed: Spec) -> int:
        model = (2 if changed.model.lora is None else 1) * (1 if changed.model.gradient_checkpointing else 3)
        return model * row_tokens(changed)

    found = remedies(spec, 100, need(spec), need)
    alone = found[:-1] if len(changes) > 1 else found
    assert {remedy.change for remedy in alone} == changes
    assert len(found) == len(changes) + (len(changes) > 1)
    assert all(remedy.bytes < need(spec) for remedy in found)
    assert [remedy.bytes for remedy in found] == sorted((remedy.bytes for remedy in found), reverse=True)
    for remedy in found:
        check_is_allowed(place, spec, remedy)


def check_is_allowed(place: Any, spec: Spec, remedy: Remedy) -> None:
    """The job with the change is one that the contract accepts."""
    changed = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for change in remedy.change.replace(" with ", ", ").replace(" and ", ", ").split(", "):
        field, _, value = change.partition(": ")
        block, name = field.split(".")
        changed[block][name] = yaml.safe_load(value)
    load_job(place.write(**changed))


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ([0.5, "raised KeyError", 0.0], None),
        ([None, None], None),
        ([], None),
        (["raised KeyError", "timed out"], "gives nothing for any of the 2 samples shown (raised KeyError); correct"),
    ],
)
def test_a_reward_that_gives_nothing(rewards: list[float | str | None], words: str | None) -> None:
    said = no_reward(rewards)
    assert (said is None) if words is None else (said is not None and words in said)
