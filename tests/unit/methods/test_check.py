"""What `ytrain check` finds and foretells, on real job files, data and a small model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file
from tests.conftest import make_model_folder, write_chats
from transformers import MixtralConfig

from ytrain.data.order import plan_epoch

pytestmark = pytest.mark.unit

BAD_LINES = "not json\n" + json.dumps({"what": "no chat"}) + "\n"


def bad_chats(folder: Path, name: str) -> str:
    """A file with 20 good chats and 2 records that cannot be used."""
    path = write_chats(folder / name, 20)
    path.write_text(path.read_text() + BAD_LINES)
    return f"file://./{name}"


def test_a_job_without_a_fault(place: Any) -> None:
    result = place.check()
    assert (result.findings.messages, result.warnings, result.notes) == ([], [], [])
    assert (result.data.read, result.data.used, result.data.skipped) == (20, 20, 0)
    assert (result.course.steps, result.course.epochs, result.course.samples_per_step) == (12, 3, 5)
    assert result.course.learning_rate == 5e-6 and result.course.learning_rate_is_default
    assert result.memory.fits and not result.memory.remedies
    assert result.memory.need.total == sum(result.memory.need.parts.values())
    assert result.duration.seconds > 0 and result.duration.precision in ("float32", "bfloat16")
    assert not (place.folder / "run").exists()


def test_samples_from_begin_middle_and_end_are_shown_with_what_is_learned(place: Any) -> None:
    previews = place.check().previews
    assert [preview.place.rpartition(":")[2] for preview in previews] == ["1", "11", "20"]
    learned = "".join(text for text, learned in previews[1].runs if learned)
    assert learned == "10 is it<|im_end|>" and previews[1].labels == len("10 is it") + 1


def test_the_first_step_lies_in_rows_as_it_will(place: Any) -> None:
    result = place.check()
    lengths = np.array([preview.tokens for preview in result.previews])
    assert lengths.max() <= result.course.filling.row_tokens == 256
    assert result.course.first.samples == len(plan_epoch([1] * 20, 42, 0, batch_sequences=5)[0])
    assert 0.5 < result.course.filling.share <= 1
    data = {"train": [{"source": "file://./chats.jsonl"}], "packing": False}
    assert place.check(data=data).course.filling is None


def test_what_samples_of_a_row_begin_with_in_common_is_told(place: Any) -> None:
    told = "You answer in one short word and never say why, whoever asks and however often. " * 2

    def checked(system: Callable[[int], str]) -> Any:
        chats = [[("system", system(n)), ("user", f"What is {n}?"), ("assistant", f"{n} is it")] for n in range(20)]
        records = [{"messages": [{"role": role, "content": said} for role, said in chat]} for chat in chats]
        (place.folder / "told.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return place.check(data={"train": [{"source": "file://./told.jsonl"}], "maxTokens": 1024})

    alike, different = checked(lambda _: told), checked(lambda n: f"{n:02}{told}")
    assert alike.course.filling.forwarded < 0.5 < 0.9 < different.course.filling.forwarded <= 1
    assert alike.data.tokens > 0.9 * different.data.tokens


FAULTS = [
    ({"suspend": True}, "spec.suspend: true"),
    ({"deepspeed": {"config": {"optimizer": {}}}}, "spec.deepspeed.config.optimizer: is set by the trainer"),
    ({"model": {"source": "file:///nowhere"}}, "spec.model.source: file:///nowhere: no such file or folder"),
    ({"data": {"train": [{"source": "file://./none.jsonl"}]}}, "spec.data.train[0].source: file://./none.jsonl: no"),
    ({"data": {"train": [{"source": "pvc://c/x.jsonl"}]}}, "--claim c=DIR"),
    ({"output": {"target": "file://./"}}, "is not empty"),
    ({"output": {"target": "pvc://c/out"}}, "spec.output.target: pvc://c/out: the claim has no folder here"),
    ({"sft": {"teacher": {"source": "file:///nowhere"}}}, "spec.sft.teacher.source: file:///nowhere: no such"),
    (
        {"evaluation": {"retention": [{"name": "prose", "source": "file:///nowhere"}]}},
        "spec.evaluation.retention[prose].source: file:///nowhere: no such",
    ),
]


@pytest.mark.parametrize(("spec", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_one_fault_is_one_finding(place: Any, spec: dict[str, Any], words: str) -> None:
    (finding,) = place.check(**spec).findings.messages
    assert words in finding


def test_a_target_that_no_layer_has_is_found_without_weights(place: Any) -> None:
    model = place.job["spec"]["model"] | {"lora": {"targets": ["nothing"]}}
    (finding,) = place.check(model=model).findings.messages
    assert finding.startswith("spec.model.lora.targets") and "q_proj" in finding


def test_an_adapter_on_the_output_head_is_found_without_weights(place: Any) -> None:
    model = place.job["spec"]["model"] | {"lora": {"targets": ["q_proj", "lm_head"]}}
    (finding,) = place.check(model=model).findings.messages
    assert "lm_head is the output head" in finding


def test_a_teacher_with_another_vocabulary(place: Any, model_folder: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(model_folder, teacher)
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    (finding,) = place.check(sft={"teacher": {"source": f"file://{teacher}"}}).findings.messages
    assert "vocabulary has 300 tokens" in finding


def test_a_model_with_fewer_tokens_than_its_tokenizer(place: Any, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "small", vocab_size=200)
    (finding,) = place.check(model={"source": f"file://{folder}"}).findings.messages
    assert "a token that the model does not have: '<|im_start|>' (id 257)" in finding


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_scaling": LONGROPE},
        {
            "rope_scaling": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0},
            "max_position_embeddings": 64,
        },
    ],
    ids=["longrope", "dynamic"],
)
def test_a_long_sample_does_not_rescale_the_short_ones_in_its_row(
    place: Any, tmp_path: Path, scaling: dict[str, Any]
) -> None:
    folder = make_model_folder(tmp_path / "scaling", **scaling)
    model, data = {"source": f"file://{folder}"}, place.job["spec"]["data"]
    (finding,) = place.check(model=model).findings.messages
    assert finding.startswith("spec.data.packing: beyond 64 tokens this model scales the positions of a row otherwise")
    assert place.check(model=model, data=data | {"packing": False}).findings.messages == []
    assert place.check(model=model, data=data | {"maxTokens": 64, "overlong": "truncate"}).findings.messages == []


def test_a_model_folder_without_weights_or_tokenizer(place: Any, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(model_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    findings = place.check(model={"source": f"file://{folder}"}).findings.messages
    assert len(findings) == 2
    assert "has no tokenizer" in findings[0] and "holds no .safetensors weights" in findings[1]


def test_faults_of_every_kind_are_found_in_one_go(place: Any) -> None:
    data = {
        "train": [{"source": "file://./chats.jsonl"}],
        "validation": [{"source": bad_chats(place.folder, "validation.jsonl")}],
    }
    evaluation = {
        "retention": [{"name": "kept", "source": bad_chats(place.folder, "kept.jsonl")}],
        "tasks": [
            {"name": "gone", "source": "file://./gone.jsonl"},
            {"name": "asked", "source": bad_chats(place.folder, "asked.jsonl")},
        ],
    }
    result = place.check(suspend=True, output={"target": "file://./"}, data=data, evaluation=evaluation)
    starts = [
        "spec.suspend",
        "spec.output.target",
        "spec.evaluation.tasks[gone].source",
        "spec.data.validation: 2 of 22 records",
        "spec.evaluation.retention[kept]: 2 of 22 records",
        "/",
    ]
    assert len(result.findings.messages) == len(starts)
    for finding, start in zip(result.findings.messages, starts, strict=True):
        assert finding.startswith(start), finding
    assert "asked.jsonl:21" in result.findings.messages[-1]
    assert result.course is not None  # the run is foretold from the training data all the same


def test_bad_training_data_and_a_taken_folder_are_both_said(place: Any) -> None:
    data = {"train": [{"source": bad_chats(place.folder, "bad.jsonl")}]}
    result = place.check(data=data, output={"target": "file://./"})
    taken, bad = result.findings.messages
    assert "is not empty" in taken
    assert bad.startswith("spec.data.train: 2 of 22 records") and "bad.jsonl:21" in bad and "bad.jsonl:22" in bad
    assert result.course is None and result.notes


def test_records_within_the_allowed_fraction_are_counted_by_reason(place: Any) -> None:
    data = {"train": [{"source": bad_chats(place.folder, "bad.jsonl")}], "maxBadFraction": 0.5}
    result = place.check(data=data)
    assert not result.findings.messages
    assert (result.data.used, result.data.skipped, sum(result.data.reasons.values())) == (20, 2, 2)


def test_windows_are_told_with_their_cost(place: Any) -> None:
    result = place.check(sft={"window": {"tokens": 4}})
    assert result.windows.windows * 3 == result.course.steps
    assert result.windows.times_whole > 1 and result.course.samples_per_step is None
    assert result.duration.seconds > 0


def test_a_second_model_counts(place: Any, model_folder: Path) -> None:
    model = place.job["spec"]["model"] | {"precision": "float32"}
    anchored = place.check(model=model, sft={"baseAnchor": {"weight": 0.1}}).memory.need
    taught = place.check(model=model, sft={"teacher": {"source": f"file://{model_folder}"}}).memory.need
    assert anchored.frozen_models == taught.frozen_models == anchored.estimate.weights
    with_adapter = model | {"lora": {}}
    assert place.check(model=with_adapter, sft={"baseAnchor": {"weight": 0.1}}).memory.need.frozen_models == 0


def test_several_ranks_are_noted_not_refused(place: Any) -> None:
    result = place.check(workers={"devices": 2})
    assert not result.findings.messages and "2 ranks" in result.notes[0] and "global batch" in result.notes[0]


def test_ranks_on_a_cpu_share_its_memory(place: Any) -> None:
    alone = place.check().memory.need
    two = place.check(processes=2, workers={"devices": 2})
    assert not two.notes
    assert two.memory.need.parts["weights"] == 2 * alone.parts["weights"]
    assert two.memory.need.checkpoint_copies == alone.checkpoint_copies == alone.parts["optimizer"] * 3 // 2
    assert two.memory.need.total == 2 * alone.total - alone.checkpoint_copies


def test_zero_shares_its_state_out(place: Any) -> None:
    plain = place.check(processes=4).memory.need.parts
    shared = place.check(processes=4, deepspeed={"zeroStage": 2}).memory.need.parts
    assert shared["optimizer"] == pytest.approx(plain["optimizer"] / 4, abs=4)
    assert shared["gradients"] == pytest.approx(plain["gradients"] / 4, abs=4)
    assert (shared["weights"], shared["checkpointCopies"]) == (plain["weights"], plain["checkpointCopies"])


def in_a_step_alone(need: Any) -> int:
    """Bytes of one rank that are not there between steps."""
    return int(need.estimate.total - need.estimate.weights - need.estimate.optimizer)


def test_weights_that_are_shared_out_are_whole_between_steps(place: Any, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "wide", hidden_size=512, intermediate_size=2048)
    job = {"model": {"source": f"file://{folder}"}, "workers": {"devices": 8}, "data": place.job["spec"]["data"]}
    job["data"] |= {"maxTokens": 64}
    plain, shared = (place.check(processes=8, **job, deepspeed={"zeroStage": stage}).memory.need for stage in (2, 3))
    assert plain.between_steps == 0 < shared.between_steps
    assert shared.between_steps + in_a_step_alone(shared) == plain.estimate.weights


def test_answers_that_need_more_than_a_step_are_counted(place: Any) -> None:
    reward = {"builtin": {"kind": "exact"}}
    few, many, twice = (
        place.check(sft=None, rl={"reward": reward, "rollout": {"chains": chains, "maxNewTokens": 200}}).memory.need
        for chains in (2, 500, 1000)
    )
    assert few.between_steps == 0 < many.between_steps
    assert twice.between_steps + in_a_step_alone(twice) == 2 * (many.between_steps + in_a_step_alone(many))


def test_a_step_answers_no_more_prompts_than_there_are(place: Any) -> None:
    rl = {"reward": {"builtin": {"kind": "exact"}}, "rollout": {"promptsPerStep": 1000, "chains": 3}, "tree": {}}
    result = place.check(sft=None, rl=rl)
    assert result.answers_per_step == result.data.used * (3 + 1 * 2 * 2)


def test_copies_for_a_checkpoint_are_bounded(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ytrain.methods.memory.PART_BYTES", 1000)
    assert place.check().memory.need.checkpoint_copies == 5000


def test_an_architecture_that_cannot_be_traced_is_noted(place: Any, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "experts"
    shutil.copytree(model_folder, folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=2, architectures=["MixtralForCausalLM"])
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    result = place.check(model={"source": f"file://{folder}"})
    assert not result.findings.messages and "mixtral" in result.notes[0]
    assert result.course.steps == 12 and result.memory is None and result.duration is None


def test_the_output_of_the_jobs_own_run_is_no_fault(
    place: Any, ytrain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    file = place.write(output={"target": "file://./trained"}, optimization={"batchSequences": 5, "maxSteps": 1})
    assert ytrain("run", file, "--workdir", "runs/small", "--device", "cpu").code == 0
    ended = ytrain("check", file, "--json")
    assert json.loads(ended.out)["findings"] == [] and ended.code == 0
