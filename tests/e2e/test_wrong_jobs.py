"""Faults of the job file and of the places that it names: exit code 2, told by place and value, nothing left behind."""

import fcntl
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Commands, Ended
from run_folders import checkpoints, files_of, steps_written, write_job
from tests.conftest import make_model_folder
from transformers import BloomConfig, BloomForCausalLM

pytestmark = pytest.mark.e2e

Here = Callable[..., Ended]
LEFT_BY_A_REFUSAL = {".identity", ".lock", "job.yaml", "skipped.jsonl", "result.json", "report.html"}


def nothing_trained(run: Path) -> bool:
    """Whether a refused job left no more than its description and the record of the failure."""
    return not run.exists() or {path.name for path in run.iterdir()} <= LEFT_BY_A_REFUSAL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samplers": {}}, ["spec.samplers", "unknown field", "known here"]),
        ({"evaluaton": {}}, ["spec.evaluaton", "unknown field", "did you mean evaluation"]),
        ({"optimization.learning_rate": 1e-3}, ["spec.optimization.learning_rate", "learningRate"]),
        ({"optimization.epochs": "three"}, ["spec.optimization.epochs", "three", "whole number from 1"]),
        ({"optimization.epochs": 0}, ["spec.optimization.epochs", "0", "1"]),
        ({"cpt": {}}, ["exactly one of sft, cpt, rl, corpus"]),
        ({"sft": ...}, ["exactly one of sft, cpt, rl, corpus"]),
        ({"data.overlong": "split"}, ["spec.data.overlong", "split", "use skip or truncate", "with cpt"]),
        (
            {
                "sft": ...,
                "corpus": {},
                "model.lora": {"rank": 4},
                "data.validation": [{"source": "file://./chats.jsonl"}],
            },
            ["spec.model.lora: a corpus job trains no adapter", "spec.data.validation", "remove it or name it there"],
        ),
        (
            {"deepspeed": {"config": {"gradient_clipping": 1.0}}},
            ["spec.deepspeed.config.gradient_clipping", "spec.optimization.gradientClip", "remove it"],
        ),
        ({"suspend": True}, ["spec.suspend", "set it to false"]),
        ({"output": {"merge": True}}, ["spec.output.merge", "model.lora"]),
        ({"sft": {"loss": {"kind": "treshold"}}}, ["spec.sft.loss.kind", "treshold", "threshold"]),
    ],
)
def test_job_that_cannot_be_run_leaves_no_folder(
    ytrain_here: Here, place: Path, model_folder: Path, changes: dict[str, Any], words: list[str]
) -> None:
    write_job(place, model_folder, changes)
    ytrain_here(place, "run", "tiny.yaml").expect(2, *words)
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["tiny.yaml", "cannot be read", "No such file"]),
        (b"", ["tiny.yaml", "empty", "YTrainJob"]),
        (b"kind: [", ["tiny.yaml:1", "not YAML"]),
        (b"kind: ConfigMap\nmetadata: {name: a}\n", ["no document of kind YTrainJob"]),
        (b"\xff\xfe\x00", ["tiny.yaml", "UTF-8"]),
    ],
)
def test_file_that_holds_no_job(ytrain_here: Here, tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / "tiny.yaml").write_bytes(content)
    ytrain_here(tmp_path, "run", "tiny.yaml").expect(2, *words)
    assert not (tmp_path / "runs").exists()


def test_rl_is_not_available(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder, {"sft": ..., "rl": {"reward": {"builtin": "exact"}}})
    ytrain_here(place, "run", "tiny.yaml").expect(2, "spec.rl")
    assert not (place / "runs").exists()


def without(name: str) -> Callable[[Path], None]:
    """Removes a file of a model folder."""
    return lambda folder: (folder / name).unlink()


def only_pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def foreign_code(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    auto = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    path.write_text(json.dumps(config | {"model_type": "own", "auto_map": auto}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("config.json"), ["no config.json", "from_pretrained would read"]),
        (without("tokenizer.json"), ["no tokenizer", "copy the tokenizer files"]),
        (only_pickled_weights, ["no .safetensors weights", "pytorch_model.bin", "refused"]),
        (without("model.safetensors"), ["no .safetensors weights"]),
        (cut_weights, ["not a causal language model that can be loaded", "incomplete"]),
        (foreign_code, ["spec.model.source"]),
        (lambda folder: (folder / "config.json").write_text("{"), ["spec.model.source"]),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), ["spec.model.source", "tokenizer"]),
    ],
)
def test_folder_that_holds_no_usable_model(
    ytrain_here: Here, place: Path, model_folder: Path, damage: Callable[[Path], None], words: list[str]
) -> None:
    folder = shutil.copytree(model_folder, place / "model")
    damage(folder)
    write_job(place, folder)
    ytrain_here(place, "run", "tiny.yaml").expect(2, str(folder), *words)
    assert nothing_trained(place / "runs/tiny")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("file://./nowhere", ["file://./nowhere", "no such file or folder"]),
        ("pvc://models/tiny", ["pvc://models/tiny", "--claim models=DIR"]),
        ("file://./chats.jsonl", ["spec.model.source", "is not a folder"]),
    ],
)
def test_model_that_is_not_there(ytrain_here: Here, place: Path, source: str, words: list[str]) -> None:
    write_job(place, "", {"model.source": source})
    ytrain_here(place, "run", "tiny.yaml").expect(2, *words)
    assert nothing_trained(place / "runs/tiny")


@pytest.mark.parametrize(
    ("arguments", "target", "words"),
    [
        (["--workdir", "job"], ..., ["--workdir", "tiny.yaml is a file"]),
        (["--cache", "job/cache"], ..., ["--cache", "tiny.yaml is a file"]),
        ([], "file://./tiny.yaml/output", ["spec.output.target", "tiny.yaml is a file"]),
    ],
)
def test_place_that_cannot_be_written_is_told_before_training(
    ytrain_here: Here, place: Path, model_folder: Path, arguments: list[str], target: Any, words: list[str]
) -> None:
    write_job(place, model_folder, {"output": {"target": target} if target is not ... else {}})
    arguments = [argument.replace("job", "tiny.yaml") for argument in arguments]
    ytrain_here(place, "run", "tiny.yaml", *arguments).expect(2, *words)
    assert nothing_trained(place / "runs/tiny")


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"targets": ["q_porj"]}, ["spec.model.lora.targets", "q_porj", "q_proj"]),
        ({"startFrom": "file://./nowhere"}, ["file://./nowhere", "no such file or folder"]),
        ({"startFrom": "file://./empty"}, ["spec.model.lora.startFrom", "no adapter_config.json"]),
    ],
)
def test_lora_that_does_not_fit(
    ytrain_here: Here, place: Path, model_folder: Path, lora: dict[str, Any], words: list[str]
) -> None:
    (place / "empty").mkdir()
    write_job(place, model_folder, {"model.lora": {"rank": 4, "alpha": 8, **lora}})
    ytrain_here(place, "run", "tiny.yaml").expect(2, *words)
    assert nothing_trained(place / "runs/tiny")


def test_teacher_of_another_vocabulary(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    make_model_folder(place / "teacher", vocab_size=300)
    write_job(place, model_folder, {"sft": {"teacher": {"source": "file://./teacher"}}})
    ytrain_here(place, "run", "tiny.yaml").expect(2, "spec.sft.teacher.source", "300 tokens", "258")


def test_teacher_that_sees_across_the_samples_of_a_row(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
    BloomForCausalLM(BloomConfig(vocab_size=258, **sizes)).save_pretrained(place / "teacher")
    write_job(place, model_folder, {"sft": {"teacher": {"source": "file://./teacher"}}})
    ytrain_here(place, "run", "tiny.yaml").expect(2, "spec.sft.teacher.source: BloomForCausalLM", "data.packing: false")
    assert nothing_trained(place / "runs/tiny")


@pytest.mark.parametrize(
    "method",
    [
        {"sft": {}},
        {"sft": ..., "corpus": {}},
        {"sft": ..., "rl": {"reward": {"builtin": {"kind": "exact"}}, "rollout": {"maxNewTokens": 4}}},
    ],
    ids=["sft", "corpus", "rl"],
)
def test_model_that_scales_the_positions_of_a_row_by_its_longest_sample(
    ytrain_here: Here, place: Path, method: dict[str, Any]
) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    model = make_model_folder(place / "model", rope_scaling=scaling, max_position_embeddings=32)
    write_job(place, model, method)
    ytrain_here(place, "run", "tiny.yaml").expect(2, "spec.data.packing: beyond 32 tokens", "set data.packing: false")
    assert nothing_trained(place / "runs/tiny")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ["pvc://work/out", "--claim work=DIR"]),
        (("--claim", "other=volume"), ["pvc://work/out", "--claim work=DIR"]),
        (("--claim", "work"), ["--claim work", "NAME=DIR"]),
        (("--claim", "work=nowhere"), ["nowhere is not a folder"]),
    ],
)
def test_claim_that_is_not_there(
    ytrain_here: Here, place: Path, model_folder: Path, options: tuple[str, ...], words: list[str]
) -> None:
    (place / "volume").mkdir()
    write_job(place, model_folder, {"output": {"target": "pvc://work/out"}})
    ytrain_here(place, "run", "tiny.yaml", *options).expect(2, *words)
    assert nothing_trained(place / "runs/tiny")


@pytest.mark.parametrize(
    "changes",
    [
        {"output": {"target": "pvc://work/../outside/out"}},
        {"output": {"target": "pvc://work/link/out"}},
        {"output": {"target": "pvc://work/"}},
        {"model.source": "pvc://work/../outside/model"},
        {"model.source": "pvc://work/link/model"},
        {"data.train": [{"source": "pvc://work/link/chats.jsonl"}]},
        {"data.train": [{"source": "pvc://work/../outside/chats.jsonl"}]},
    ],
)
def test_path_that_leads_out_of_its_claim(
    ytrain_here: Here, place: Path, model_folder: Path, changes: dict[str, Any]
) -> None:
    outside = place / "outside"
    outside.mkdir()
    (place / "volume").mkdir()
    (place / "volume/link").symlink_to(outside)
    shutil.copytree(model_folder, outside / "model")
    shutil.copy(place / "chats.jsonl", outside)
    before = files_of(outside)
    write_job(place, model_folder, changes)
    ytrain_here(place, "run", "tiny.yaml", "--claim", "work=volume").expect(2, "pvc://work/")
    assert files_of(outside) == before
    assert nothing_trained(place / "runs/tiny")


def test_output_folder_that_is_taken(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    (place / "taken").mkdir()
    (place / "taken/thesis.txt").write_text("mine")
    write_job(place, model_folder, {"output": {"target": "file://./taken"}})
    ytrain_here(place, "run", "tiny.yaml").expect(2, "spec.output.target", "taken is not empty", "another folder")
    assert files_of(place / "taken") == {"thesis.txt": b"mine"}
    assert nothing_trained(place / "runs/tiny")


def test_work_folder_that_holds_something_else(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine/thesis.txt").write_text("mine")
    write_job(place, model_folder)
    ytrain_here(place, "run", "tiny.yaml", "--workdir", "mine").expect(2, "mine", "not empty", "--workdir")
    assert set(files_of(place / "mine")) <= {"thesis.txt", ".lock"}


def test_work_folder_of_another_run_is_left_alone(ytrain: Commands, place: Path, model_folder: Path) -> None:
    """Refused to a second process, to another job and to `--resume never`; none of them changes it."""
    changes = {"optimization": {"learningRate": 1e-3, "epochs": 60, "batchSequences": 2}, "checkpoint.everySteps": 1}
    write_job(place, model_folder, changes)
    write_job(place, model_folder, changes | {"optimization.seed": 1}, name="other")
    run = place / "runs/tiny"
    running = ytrain.start(place, "run", "tiny.yaml").until(lambda: steps_written(run) >= 3)
    running.send(signal.SIGSTOP)  # else it may be done before the other has begun
    ytrain(place, "run", "tiny.yaml").expect(2, "another process trains in this folder", "--workdir")
    running.send(signal.SIGTERM).send(signal.SIGCONT).wait().expect(143)

    before = files_of(run)
    ytrain(place, "run", "other.yaml", "--workdir", run).expect(2, "the run of another job", "--workdir")
    ytrain(place, "run", "tiny.yaml", "--resume", "never").expect(2, "holds a run already", "--workdir")
    assert files_of(run) == before
    assert checkpoints(run)


def test_locked_folder_is_said_before_anything_is_written(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    run = place / "runs/tiny"
    run.mkdir(parents=True)
    write_job(place, model_folder)
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ytrain_here(place, "run", "tiny.yaml").expect(2, "another process trains in this folder")
    assert [path.name for path in run.iterdir()] == [".lock"]


def test_changed_data_are_not_mixed_into_a_run(ytrain: Commands, place: Path, model_folder: Path) -> None:
    changes = {"optimization": {"learningRate": 1e-3, "epochs": 60, "batchSequences": 2}}
    write_job(place, model_folder, changes)
    run = place / "runs/tiny"
    ytrain.start(place, "run", "tiny.yaml").until(lambda: steps_written(run) >= 3).send(signal.SIGTERM).wait()
    before = files_of(run / "checkpoints")
    with (place / "chats.jsonl").open("a") as file:
        file.write('{"prompt": "more?", "response": "yes"}\n')
    ytrain(place, "run", "tiny.yaml").expect(2, "other data", "--workdir")
    assert files_of(run / "checkpoints") == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "tiny.yaml", "--device", "tpu"), ["--device", "tpu"]),
        (("run", "tiny.yaml", "--device", "cuda"), ["--device cuda", "available: cpu"]),
        (("run",), ["Missing argument", "see ytrain run --help"]),
        (("train", "tiny.yaml"), ["train"]),
        (("merge", "nowhere", "merged"), ["ADAPTER", "nowhere", "adapter_config.json"]),
        (("model", "import", "nowhere.gguf", "model"), ["SRC", "nowhere.gguf"]),
        (("model", "import", "chats.jsonl", "model"), ["SRC", "not a GGUF file"]),
        (("report", "nowhere"), ["nowhere", "holds no run"]),
    ],
)
def test_command_line_that_is_wrong(
    ytrain_here: Here, place: Path, model_folder: Path, arguments: tuple[str, ...], words: list[str]
) -> None:
    write_job(place, model_folder)
    ytrain_here(place, *arguments).expect(2, *words)
    assert nothing_trained(place / "runs/tiny")
    assert not (place / "merged").exists() and not (place / "model").exists()


def test_a_command_without_arguments_shows_its_help_and_no_error(ytrain_here: Here, place: Path) -> None:
    assert "error:" not in ytrain_here(place, "model").expect(2, "Usage: ytrain model", "import").output


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("configmap://none/chat.jinja", ["spec.data.chatTemplate: configmap://none/chat.jinja", "no ConfigMap 'none'"]),
        ("file://./folder", ["spec.data.chatTemplate: file://./folder: no text file", "name a file of Jinja text"]),
        ("file://./binary", ["spec.data.chatTemplate: file://./binary: no text file"]),
    ],
)
def test_a_chat_template_that_cannot_be_read_is_told_by_its_field(
    ytrain_here: Here, place: Path, model_folder: Path, template: str, words: list[str]
) -> None:
    (place / "folder").mkdir()
    (place / "binary").write_bytes(b"\xff\xfe")
    write_job(place, model_folder, {"data.chatTemplate": template})
    ytrain_here(place, "check", "tiny.yaml").expect(1, *words)


def test_folder_that_several_ranks_refuse_stays_as_it_was(ytrain: Commands, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder)
    ytrain(place, "run", "tiny.yaml").expect(0)
    write_job(place, model_folder, {"optimization.learningRate": 1e-4}, name="other")
    (place / "thesis").mkdir()
    (place / "thesis/chapter.tex").touch()
    before = files_of(place / "runs/tiny")

    for job, folder, words in (
        ("other.yaml", "runs/tiny", "holds the run of another job"),
        ("tiny.yaml", "thesis", "is not empty and holds no run"),
    ):
        ytrain(place, "run", job, "--workdir", folder, "--processes", "2").expect(2, words)

    assert {path: content for path, content in files_of(place / "runs/tiny").items() if "stacks" not in path} == before
    assert [path for path in files_of(place / "thesis") if "stacks" not in path and path != ".lock"] == ["chapter.tex"]
