"""Jobs whose model, data and output lie in a bucket: trained, killed, gone on with, and refused in time."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Commands, Ended
from peft import AutoPeftModelForCausalLM
from run_folders import load_model, logits_of, steps_written, write_job
from tests.buckets import TestBucket
from tests.conftest import make_model_folder, write_chats
from tests.ports import held_port
from transformers import AutoTokenizer

pytestmark = pytest.mark.e2e

Here = Callable[..., Ended]


@pytest.fixture
def in_bucket(bucket: TestBucket, model_folder: Path, tmp_path: Path) -> TestBucket:
    """A bucket with the small model and 20 chats."""
    bucket.put_folder(model_folder, "models/tiny")
    bucket.put("data/train/chats.jsonl", write_chats(tmp_path / "chats.jsonl", 20).read_bytes())
    return bucket


def write_bucket_job(
    place: Path,
    bucket: TestBucket,
    changes: dict[str, Any] | None = None,
    *,
    environment: dict[str, str] | None = None,
    name: str = "tiny",
) -> Path:
    """A job over the bucket, and the Secret with its credentials beside it, as on a cluster."""
    uri = f"s3://{bucket.name}"
    changes = {
        "model.source": f"{uri}/models/tiny",
        "data.train": [{"source": f"{uri}/data/train"}],
        "output": {"target": f"{uri}/out/{name}"},
        "secrets": ["bucket"],
        **(changes or {}),
    }
    file = write_job(place, "", changes, name=name)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bucket"},
        "stringData": bucket.environment | {"AWS_MAX_ATTEMPTS": "2"} | (environment or {}),
    }
    file.write_text(f"{file.read_text()}---\n{yaml.safe_dump(secret)}")
    return file


def record(bucket: TestBucket, name: str = "tiny") -> dict[str, Any]:
    """What the output's record says."""
    found: dict[str, Any] = json.loads(bucket.get(f"out/{name}/ytrain.json"))
    return found


def everything_said(ended: Ended, run: Path) -> str:
    """What a run printed and wrote down."""
    return ended.output + "".join(
        path.read_text(errors="replace")
        for path in run.rglob("*")
        if path.suffix in (".json", ".jsonl", ".yaml", ".html")
    )


def test_model_and_data_and_output_in_a_bucket(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    target = f"s3://{in_bucket.name}/out/tiny"
    changes = {
        "data.validation": [{"source": f"s3://{in_bucket.name}/data/**/chats.jsonl"}],
        "evaluation": {"retention": [{"name": "chats", "source": f"s3://{in_bucket.name}/data/train/chats.jsonl"}]},
        "model.lora": {"rank": 4},
        "output": {"target": target, "merge": True},
    }
    job = write_bucket_job(tmp_path, in_bucket, changes)
    ytrain(tmp_path, "check", job).expect(0)
    assert in_bucket.keys("out/") == [] and in_bucket.unfinished() == 0
    ended = ytrain(tmp_path, "run", job).expect(0, f"output {target}")
    run = tmp_path / "runs/tiny"
    result = json.loads((run / "result.json").read_text())
    assert result["output"]["path"] == target
    assert len(result["base"]["revision"]) == 40 and record(in_bucket)["base"] == result["base"]
    assert target in (run / "report.html").read_text()
    assert in_bucket.environment["AWS_SECRET_ACCESS_KEY"] not in everything_said(ended, run)

    output = in_bucket.bring("out/tiny", tmp_path / "brought")
    ids = AutoTokenizer.from_pretrained(output)("what is 3?")["input_ids"]
    merged = load_model(output / "merged")
    base = logits_of(load_model(in_bucket.bring("models/tiny", tmp_path / "base")), ids)
    adapted = logits_of(AutoPeftModelForCausalLM.from_pretrained(output, dtype=torch.float32), ids)
    assert torch.allclose(logits_of(merged, ids), adapted, atol=1e-4) and not torch.allclose(base, adapted, atol=1e-2)

    ytrain(tmp_path, "run", job).expect(0, "done already", target)
    again = write_bucket_job(tmp_path, in_bucket, changes | {"optimization.seed": 1}, name="other")
    again.write_text(again.read_text().replace("out/other", "out/tiny"))
    refused = ["spec.output.target", target, "is not empty", "name another prefix"]
    ytrain(tmp_path, "check", again).expect(1, *refused)
    ytrain(tmp_path, "run", again).expect(2, *refused)
    assert steps_written(tmp_path / "runs/other") == 0


def test_more_epochs_replace_the_output(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    ytrain(tmp_path, "run", write_bucket_job(tmp_path, in_bucket)).expect(0)
    before = record(in_bucket)
    in_bucket.put("out/tiny/model-of-before.safetensors", b"x")
    ytrain(tmp_path, "run", write_bucket_job(tmp_path, in_bucket, {"optimization.epochs": 3})).expect(0)
    assert record(in_bucket)["step"] == before["step"] * 3 // 2
    assert not {"out/tiny/model-of-before.safetensors", "out/tiny/ytrain.uploading.json"} & set(in_bucket.keys("out/"))


def test_two_ranks(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    ytrain(tmp_path, "run", write_bucket_job(tmp_path, in_bucket), "--processes", "2").expect(0)
    assert record(in_bucket)["step"] == 10


def test_killed_while_it_uploads(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    large = make_model_folder(tmp_path / "large", hidden_size=512, intermediate_size=2048)
    in_bucket.put_folder(large, "models/large")
    job = write_bucket_job(
        tmp_path, in_bucket, {"model.source": f"s3://{in_bucket.name}/models/large", "optimization.maxSteps": 1}
    )
    mark, whole = "out/tiny/ytrain.uploading.json", "out/tiny/ytrain.json"
    command = ytrain.start(tmp_path, "run", job)
    command.until(lambda: mark in in_bucket.keys("out/"))
    command.send(signal.SIGKILL).wait()
    assert whole not in in_bucket.keys("out/")
    arrived = "out/tiny/config.json"
    in_bucket.put("out/tiny/of-the-first-try", b"x")

    other = write_bucket_job(tmp_path, in_bucket, name="other")
    other.write_text(other.read_text().replace("out/other", "out/tiny"))
    ytrain(tmp_path, "run", other).expect(2, "is not empty")

    ytrain(tmp_path, "run", job).expect(0)
    keys = in_bucket.keys("out/")
    assert whole in keys and arrived in keys and mark not in keys and "out/tiny/of-the-first-try" not in keys
    assert steps_written(tmp_path / "runs/tiny") == 1
    trained = load_model(in_bucket.bring("out/tiny", tmp_path / "brought"))
    assert torch.equal(logits_of(trained, [1, 2, 3]), logits_of(load_model(tmp_path / "runs/tiny/output"), [1, 2, 3]))


def test_what_has_arrived_is_not_uploaded_again(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    job = write_bucket_job(tmp_path, in_bucket)
    ytrain(tmp_path, "run", job).expect(0)
    entry = {"Bucket": in_bucket.name, "Key": "out/tiny/model.safetensors"}
    mark = [{"Key": "seen", "Value": "before"}]  # an object that is put anew has none
    in_bucket.client.put_object_tagging(**entry, Tagging={"TagSet": mark})
    content = in_bucket.get("out/tiny/ytrain.json")
    # As a kill leaves it before the record is written.
    in_bucket.put("out/tiny/ytrain.uploading.json", content)
    for key in ("ytrain.json", "config.json"):
        in_bucket.client.delete_object(Bucket=in_bucket.name, Key=f"out/tiny/{key}")
    (tmp_path / "runs/tiny/result.json").unlink()
    ytrain(tmp_path, "run", job).expect(0)
    assert in_bucket.client.get_object_tagging(**entry)["TagSet"] == mark
    assert in_bucket.get("out/tiny/ytrain.json") == content and "out/tiny/config.json" in in_bucket.keys("out/")


def test_data_that_changed_before_it_goes_on(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    job = write_bucket_job(
        tmp_path, in_bucket, {"optimization.epochs": 400, "checkpoint": {"everySteps": 2, "every": "1h"}}
    )
    run = tmp_path / "runs/tiny"
    command = ytrain.start(tmp_path, "run", job)
    command.until(lambda: any((run / "checkpoints").glob("step-*")) if run.exists() else False)
    command.send(signal.SIGKILL).wait()
    in_bucket.put("data/train/chats.jsonl", write_chats(tmp_path / "new.jsonl", 20, first=7).read_bytes())
    ytrain(tmp_path, "run", job).expect(2, "was trained on other data than the job's sources hold now")


def test_a_corpus_job(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    job = write_bucket_job(tmp_path, in_bucket, {"sft": ..., "optimization": ..., "corpus": {}})
    target = f"s3://{in_bucket.name}/out/tiny"
    ytrain(tmp_path, "run", job).expect(0, f"{target}/scored.jsonl", f"name {target}/cleaned.jsonl in data.train")
    assert {"out/tiny/cleaned.jsonl", "out/tiny/scored.jsonl", "out/tiny/ytrain.json"} == set(in_bucket.keys("out/"))


@pytest.mark.parametrize(
    ("changes", "environment", "code", "words"),
    [
        ({"model.source": "s3://no-bucket-of-this-name/x"}, {}, 2, ["has no bucket 'no-bucket-of-this-name'"]),
        ({"output": {"target": "s3://no-bucket-of-this-name/x"}}, {}, 2, ["spec.output.target", "has no bucket"]),
        ({"output": {"target": "s3://bucket"}}, {}, 2, ["spec.output.target: s3://bucket: name a prefix"]),
        ({}, {"AWS_SECRET_ACCESS_KEY": "wrong"}, 2, ["does not let these credentials do that", "spec.secrets"]),
        ({}, {"AWS_ACCESS_KEY_ID": "nobody"}, 2, ["(InvalidAccessKeyId for ListObjectsV2)"]),
    ],
)
def test_what_is_refused_before_training(
    ytrain: Commands,
    in_bucket: TestBucket,
    tmp_path: Path,
    changes: dict[str, Any],
    environment: dict[str, str],
    code: int,
    words: list[str],
) -> None:
    job = write_bucket_job(tmp_path, in_bucket, changes, environment=environment)
    ytrain(tmp_path, "check", job).expect(1, *words)
    ytrain(tmp_path, "run", job).expect(code, *words)
    assert steps_written(tmp_path / "runs/tiny") == 0


def test_an_endpoint_that_is_down_may_be_tried_again(ytrain: Commands, in_bucket: TestBucket, tmp_path: Path) -> None:
    with held_port() as port:
        url = f"http://127.0.0.1:{port}"
        job = write_bucket_job(tmp_path, in_bucket, environment={"AWS_ENDPOINT_URL": url})
        ytrain(tmp_path, "run", job).expect(5, url, "cannot be reached", "run the same command again")
    assert steps_written(tmp_path / "runs/tiny") == 0
    ytrain(tmp_path, "run", write_bucket_job(tmp_path, in_bucket)).expect(0)
