"""An S3 server of the tests' own, which asks for credentials as the real one does, and buckets in it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.ports import held_port

BEFORE_IT_ASKS = 3
"""Calls that need no credentials: those that make a user with a key."""

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::*/kept/*"},
    ],
}
_numbers = count()


@dataclass(frozen=True)
class BucketServer:
    """Where the server listens, and what a client needs to be let in."""

    environment: dict[str, str]

    def client(self) -> Any:
        """A client that looks nowhere else."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )


@dataclass(frozen=True)
class TestBucket:
    """A bucket that nobody else uses."""

    __test__ = False  # to pytest

    name: str
    client: Any
    environment: dict[str, str]

    def put(self, key: str, content: bytes) -> None:
        """Put an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def put_folder(self, folder: Path, prefix: str) -> None:
        """Put all files of a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def get(self, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        """All keys below a prefix, sorted."""
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", ())
        return sorted(entry["Key"] for entry in found)

    def bring(self, prefix: str, folder: Path) -> Path:
        """Lay what is below a prefix into a folder, as a user would."""
        for key in self.keys(f"{prefix}/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))
        return folder

    def unfinished(self) -> int:
        """How many uploads were begun and neither ended nor given up."""
        return len(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()))


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """A server in a process of its own."""
    import boto3

    with held_port() as port:
        server = subprocess.Popen(
            [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(BEFORE_IT_ASKS)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(port, server)
            users = boto3.client(
                "iam", endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
            )
            users.create_user(UserName="team")
            users.put_user_policy(UserName="team", PolicyName="buckets", PolicyDocument=json.dumps(POLICY))
            key = users.create_access_key(UserName="team")["AccessKey"]
            yield BucketServer(
                {
                    "AWS_ENDPOINT_URL": url,
                    "AWS_REGION": "us-east-1",
                    "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                    "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
                }
            )
        finally:
            server.kill()
            server.wait()


@pytest.fixture
def bucket(bucket_server: BucketServer) -> TestBucket:
    """An empty bucket; its environment is not set."""
    client, name = bucket_server.client(), f"team-{os.getpid()}-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    return TestBucket(name, client, bucket_server.environment)


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None and time.monotonic() < deadline, "the S3 server did not begin to listen"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
