"""A Hub that answers over HTTP as the real one does, with one model and one data set; a model in a bucket."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from tests.buckets import TestBucket

from ytrain.sources import Sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {
    "models/acme/tiny": {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"pickle",
        "modeling_tiny.py": b"import os",
    },
    "models/acme/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "datasets/acme/chats": {
        "README.md": b"# chats",
        "data/a.jsonl": b'{"text": "a"}\n',
        "data/b.jsonl": b'{"text": "b"}\n',
    },
}


class _Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "api":
            name, rest = "/".join(parts[1:4]), parts[4:]
            self._repository(name, rest)
            return
        kind, parts = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
        content = REPOSITORIES.get(f"{kind}/{parts[0]}/{parts[1]}", {}).get("/".join(parts[4:]))
        self._send(404 if content is None else 200, content or b"", {"X-Error-Code": "EntryNotFound"})

    def _repository(self, name: str, rest: list[str]) -> None:
        files = REPOSITORIES.get(name)
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif rest[:1] == ["tree"]:
            entries = [{"type": "file", "path": path, "size": len(c), "oid": "0"} for path, c in files.items()]
            self._send(200, json.dumps(entries).encode(), {})
        else:
            siblings = [{"rfilename": path} for path in files]
            answer = {"id": name.split("/", 1)[1], "sha": COMMIT, "siblings": siblings, "private": False}
            self._send(200, json.dumps(answer).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        if status == 200:
            headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def _point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", url)


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    _point_to(url, monkeypatch)
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def no_hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _point_to("http://127.0.0.1:9", monkeypatch)  # the discard port: nothing listens


MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling_tiny.py": b"import os",
    "checkpoint-10/model.safetensors": b"older",
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bucket: TestBucket) -> None:
    """The environment of the bucket, and nothing of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def sources_of(tmp_path: Path, *, weights: bool = True) -> Sources:
    return Sources(
        claims={},
        config_maps={},
        base_dir=tmp_path,
        scratch=tmp_path / "scratch",
        cache=tmp_path / "cache",
        weights=weights,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return sources_of(tmp_path)


@pytest.fixture
def model(bucket: TestBucket) -> str:
    for name, content in MODEL.items():
        bucket.put(f"models/tiny/{name}", content)
    return f"s3://{bucket.name}/models/tiny"
