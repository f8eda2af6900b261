"""An output in a bucket: what is refused before training, and what a killed upload left behind."""

from pathlib import Path

import pytest
from tests.buckets import TestBucket

from ytrain.methods.bucket_output import RECORD, UPLOADING, BucketOutput
from ytrain_api.errors import SpecError

pytestmark = pytest.mark.unit
PART = 5 * 2**20


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, bucket: TestBucket) -> None:
    """The bucket's."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A finished output."""
    (tmp_path / RECORD).write_text('{"run": "this"}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def open_output(bucket: TestBucket, prefix: str = "out") -> BucketOutput:
    return BucketOutput(f"s3://{bucket.name}/{prefix}", lambda record, finished: record.get("run") == "this")


def test_credentials_that_may_not_delete_are_refused_before_anything_is_uploaded(bucket: TestBucket) -> None:
    with pytest.raises(SpecError, match=r"\(AccessDenied for DeleteObject\).*s3:DeleteObject"):
        open_output(bucket, "kept")
    assert bucket.keys() == [] and bucket.unfinished() == 0


def test_parts_that_a_killed_upload_left_are_removed(bucket: TestBucket, output: Path) -> None:
    bucket.put(f"out/{UPLOADING}", b'{"run": "this"}')
    for key in ("out/model.safetensors", "out/model.safetensors", "out/model.safetensors.of-somebody-else"):
        entry = {"Bucket": bucket.name, "Key": key}
        upload = bucket.client.create_multipart_upload(**entry)["UploadId"]
        bucket.client.upload_part(**entry, UploadId=upload, PartNumber=1, Body=bytes(PART))
    open_output(bucket).upload(output, lambda _: None)
    assert bucket.keys() == ["out/model.safetensors", f"out/{RECORD}"] and bucket.unfinished() == 1
