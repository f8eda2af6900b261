"""Buckets that fail: what a user reads, never with a secret in it, and nothing wrong is taken for what was listed."""

import logging
import os
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from tests.buckets import TestBucket
from tests.ports import held_port
from tests.unit.sources.relay import Relay

from ytrain.sources import Sources
from ytrain.sources.bucket import Bucket, _object
from ytrain_api.errors import DataError, SpecError, TransientError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("aws")]
SUFFIXES = frozenset({".jsonl"})


def test_an_endpoint_that_breaks_off_is_a_transient_fault(
    bucket: TestBucket, sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket.put("large/config.json", b"{}")
    bucket.put("large/model.safetensors", os.urandom(30_000_000))
    url = urlsplit(bucket.environment["AWS_ENDPOINT_URL"])
    with Relay((url.hostname or "", url.port or 0), break_after=12_000_000) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL", relay.url)
        with pytest.raises(TransientError, match=rf"{relay.url} cannot be reached, or broke off.*run the same command"):
            sources.resolve(f"s3://{bucket.name}/large")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".safetensors"]


@pytest.mark.parametrize("megabytes", [1, 20])  # in one piece, and in parts
@pytest.mark.parametrize("vanishes", [False, True])
def test_an_object_that_changes_after_it_was_listed(
    bucket: TestBucket,
    sources: Sources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: int,
    vanishes: bool,
) -> None:
    key = "large/model.safetensors"
    bucket.put("large/config.json", b"{}")
    bucket.put(key, os.urandom(megabytes * 1_000_000))
    fetch = Bucket.fetch

    def changed_before(*arguments: Any) -> Any:
        if vanishes:
            bucket.client.delete_object(Bucket=bucket.name, Key=key)
        else:
            bucket.put(key, os.urandom(megabytes * 1_000_000))
        return fetch(*arguments)

    monkeypatch.setattr(Bucket, "fetch", changed_before)
    with pytest.raises(
        TransientError, match=r"no longer has what it listed: somebody changes the bucket. Run it again"
    ):
        sources.resolve(f"s3://{bucket.name}/large")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".safetensors"]


def test_an_object_without_an_etag_is_known_by_its_date(
    bucket: TestBucket, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gateways list files that were laid on their disk so, and some leave the field out."""
    object_of, fetch = _object, Bucket.fetch
    monkeypatch.setattr("ytrain.sources.bucket._object", lambda entry: replace(object_of(entry), etag="", changed=date))

    def read() -> str:
        return sources.files(f"s3://{bucket.name}/a.jsonl", SUFFIXES).files[0][1].read_text()

    bucket.put("a.jsonl", b"1")
    date = "1"
    assert read() == "1"
    bucket.put("a.jsonl", b"2")
    assert read() == "1"  # known
    date = "2"
    assert read() == "2"

    def changed_meanwhile(*arguments: Any) -> Any:
        nonlocal date
        date = "4"
        return fetch(*arguments)

    date = "3"
    monkeypatch.setattr(Bucket, "fetch", changed_meanwhile)
    with pytest.raises(TransientError, match="no longer has what it listed"):
        read()


def test_what_a_user_reads_when_it_fails_and_no_secret(
    model: str, sources: Sources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bucket: TestBucket
) -> None:
    caplog.set_level(logging.INFO)
    secret = bucket.environment["AWS_SECRET_ACCESS_KEY"]
    said = []

    def refused(uri: str, match: str, kind: type[Exception] = SpecError) -> None:
        with pytest.raises(kind, match=match) as error:
            sources.resolve(uri)
        said.append(str(error.value))

    refused(f"s3://{bucket.name}/models/nothing", r"no such object, and none directly below it. Check the path")
    refused("s3://no-such-bucket-here/x", r"http://127.0.0.1:\d+ has no bucket 'no-such-bucket-here'. Check its name")
    refused("s3://Not_A_Bucket!/x", r"Invalid bucket name.*Check the name of the bucket")
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", secret[::-1])
        refused(
            model, r"does not let these credentials do that \(SignatureDoesNotMatch for ListObjectsV2\).*spec.secrets"
        )
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_ACCESS_KEY_ID", "nobody")
        refused(model, r"does not let these credentials do that \(InvalidAccessKeyId for .*s3:ListBucket")
    with monkeypatch.context() as none:
        none.delenv("AWS_ACCESS_KEY_ID")
        none.delenv("AWS_SECRET_ACCESS_KEY")
        refused(model, r"no credentials for the bucket.*AWS_ACCESS_KEY_ID.*~/.aws")
        none.setenv("AWS_ACCESS_KEY_ID", "half")
        refused(model, r"no credentials for the bucket.*AWS_SECRET_ACCESS_KEY")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("AWS_ENDPOINT_URL", "not an address")
        refused(model, r"AWS_ENDPOINT_URL is no address, .* Write http://host:port")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("AWS_REGION", "eu central")
        refused(model, r"region_name 'eu central' doesn't match a supported format. Check .*AWS_REGION")
    with monkeypatch.context() as plain:
        plain.setenv("AWS_ENDPOINT_URL", bucket.environment["AWS_ENDPOINT_URL"].replace("http:", "https:"))
        refused(model, r"no TLS with https://127.0.0.1:\d+ \(SSLError: .*\). Write http:// .*AWS_CA_BUNDLE")
    with monkeypatch.context() as down, held_port() as port:
        down.setenv("AWS_ENDPOINT_URL", f"http://team:{quote(secret, safe='')}@127.0.0.1:{port}")
        refused(
            model,
            rf"http://127.0.0.1:{port} cannot be reached, .*Connection refused.*run the same command again",
            TransientError,
        )
    assert all(words.startswith("s3://") for words in said)
    assert not any(words in "".join(said) + caplog.text for words in (secret, quote(secret, safe="")))


@pytest.mark.parametrize(
    ("status", "content", "kind", "match"),
    [
        (404, "<html>", SpecError, r"answers 404 .*AWS_ENDPOINT_URL"),
        (200, "<html>", TransientError, r"answers 500 .*names a server of buckets"),
        (302, "", SpecError, r"redirects to another address. Write that one in AWS_ENDPOINT_URL"),
        (308, "", SpecError, r"redirects to another address"),
    ],
)
def test_an_endpoint_that_is_no_server_of_buckets(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, status: int, content: str, kind: type[Exception], match: str
) -> None:
    asked = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Location", "/login")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(kind, match=match):
            sources.resolve("s3://team/models")
        server.shutdown()
    assert 0 < len(asked) < 10, "a redirect is not followed without end"


def test_a_cache_that_cannot_be_made_is_refused(model: str, sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(SpecError, match=r"--cache: .*/cache/s3 cannot be made"):
        sources.resolve(model)


def test_a_key_that_is_no_path_is_refused(bucket: TestBucket, sources: Sources) -> None:
    bucket.put("odd/a.jsonl", b"{}")
    bucket.put("odd/a.jsonl/b.jsonl", b"{}")
    with pytest.raises(SpecError, match=r"the key 'odd/a.jsonl/b.jsonl' cannot be the path of a file"):
        sources.files(f"s3://{bucket.name}/odd/", SUFFIXES)
    bucket.put(f"long/{'ü' * 130}.jsonl", b"{}")
    with pytest.raises(SpecError, match=r"the key 'long/ü+.jsonl' cannot be the path of a file"):
        sources.files(f"s3://{bucket.name}/long", SUFFIXES)
    bucket.put("up/x/../../../a.jsonl", b"{}")
    with pytest.raises(DataError, match=r"no readable file"):  # hidden, as every part that begins with a dot
        sources.files(f"s3://{bucket.name}/up", SUFFIXES)
