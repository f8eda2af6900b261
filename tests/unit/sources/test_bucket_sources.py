"""Models and data from a bucket: what is brought, once, at which state, and what a user reads when it fails."""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from tests.buckets import TestBucket
from tests.ports import held_port

from ytrain.sources import Sources
from ytrain.sources.bucket import Bucket, _object
from ytrain.sources.s3 import matches
from ytrain_api.errors import DataError, SpecError, TransientError

pytestmark = pytest.mark.unit
SUFFIXES = frozenset({".jsonl"})
MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling_tiny.py": b"import os",
    "checkpoint-10/model.safetensors": b"older",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bucket: TestBucket) -> None:
    """The bucket's, and nothing of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def make_sources(tmp_path: Path, *, weights: bool = True) -> Sources:
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
    return make_sources(tmp_path)


@pytest.fixture
def model(bucket: TestBucket) -> str:
    for name, content in MODEL.items():
        bucket.put(f"models/tiny/{name}", content)
    return f"s3://{bucket.name}/models/tiny"


@pytest.fixture
def data(bucket: TestBucket) -> str:
    for name in ("b.jsonl", "a.jsonl", "more/c.JSONL", "notes.docx", ".old/d.jsonl", "other.jsonl.d/e.jsonl"):
        bucket.put(f"chats/{name}", f'{{"text": "{name}"}}\n'.encode())
    bucket.put("chats/", b"")  # what consoles leave for a folder
    bucket.put("chats-of-others/f.jsonl", b"{}\n")
    return f"s3://{bucket.name}/chats"


@pytest.mark.parametrize(
    ("pattern", "key", "matched"),
    [
        ("a/*.jsonl", "a/b.jsonl", True),
        ("a/*.jsonl", "a/b/c.jsonl", False),
        ("a/**/*.jsonl", "a/b.jsonl", True),
        ("a/**/*.jsonl", "a/b/c/d.jsonl", True),
        ("a/**/*.jsonl", "a/b/c/d.txt", False),
        ("*/b.jsonl", "a/b.jsonl", True),
        ("a/[bc].jsonl", "a/c.jsonl", True),
        ("a/?.jsonl", "a/bc.jsonl", False),
        ("a/*", "a", False),
        ("a/B.jsonl", "a/b.jsonl", False),
    ],
)
def test_a_glob_stays_within_folders_as_it_does_with_files(pattern: str, key: str, matched: bool) -> None:
    assert matches(key, pattern) is matched


def test_a_model_comes_as_safetensors_without_anything_executable(model: str, sources: Sources) -> None:
    found = sources.resolve(model)
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == {
        name: MODEL[name] for name in ("config.json", "model.safetensors", "tokenizer.json")
    }
    assert re.fullmatch("[0-9a-f]{40}", found.revision or "")


def test_a_check_sees_the_weights_and_leaves_them_there(model: str, tmp_path: Path) -> None:
    seen = make_sources(tmp_path, weights=False).resolve(model)
    assert sorted(path.name for path in seen.path.iterdir() if path.exists()) == ["config.json", "tokenizer.json"]
    assert (seen.path / "model.safetensors").is_symlink()  # who looks what the folder has finds its name
    brought = make_sources(tmp_path).resolve(model)
    assert brought == seen and (brought.path / "model.safetensors").read_bytes() == b"weights"


def test_a_model_with_pickled_weights_only_is_refused(bucket: TestBucket, sources: Sources) -> None:
    bucket.put("pickled/config.json", b"{}")
    bucket.put("pickled/pytorch_model.bin", b"pickle")
    with pytest.raises(SpecError, match=r"/pickled: holds no weights as safetensors.*Convert"):
        sources.resolve(f"s3://{bucket.name}/pickled")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", ["a.jsonl", "b.jsonl", "more/c.JSONL", "other.jsonl.d/e.jsonl"]),
        ("/", ["a.jsonl", "b.jsonl", "more/c.JSONL", "other.jsonl.d/e.jsonl"]),
        ("/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("/**/*.jsonl", [".old/d.jsonl", "a.jsonl", "b.jsonl", "other.jsonl.d/e.jsonl"]),
        ("/[b]*", ["b.jsonl"]),
        ("/b.jsonl", ["b.jsonl"]),
    ],
)
def test_the_data_of_a_prefix_a_glob_or_an_object(
    data: str, bucket: TestBucket, sources: Sources, tmp_path: Path, path: str, names: list[str]
) -> None:
    found = sources.files(data + path, SUFFIXES)
    assert [name for name, _ in found.files] == [f"s3://{bucket.name}/chats/{name}" for name in names]
    assert [file.read_text() for _, file in found.files] == [f'{{"text": "{name}"}}\n' for name in names]
    assert len(list((tmp_path / "cache/s3/objects").iterdir())) == len(names)  # nothing else was brought


def test_what_is_no_data_is_told(data: str, bucket: TestBucket, sources: Sources) -> None:
    assert sources.files(data, SUFFIXES).ignored == tuple(
        f"s3://{bucket.name}/chats/{name}" for name in (".old/d.jsonl", "notes.docx")
    )
    with pytest.raises(DataError, match=r"no readable file \(found s3://.*/chats/notes.docx\). Readable are .jsonl"):
        sources.files(f"{data}/notes.docx", SUFFIXES)


def test_an_object_is_brought_once_and_anew_when_it_changed(
    data: str, bucket: TestBucket, sources: Sources, tmp_path: Path
) -> None:
    objects = tmp_path / "cache/s3/objects"
    first = sources.files(f"{data}/*.jsonl", SUFFIXES)
    kept = {path.name: path.stat().st_ino for path in objects.iterdir()}
    assert sources.files(f"{data}/*.jsonl", SUFFIXES) == first
    assert sources.files(f"{data}/a.jsonl", SUFFIXES).files[0][1].resolve() == first.files[0][1].resolve()
    assert {path.name: path.stat().st_ino for path in objects.iterdir()} == kept
    bucket.put("chats/a.jsonl", b'{"text": "new"}\n')
    second = sources.files(f"{data}/*.jsonl", SUFFIXES)
    assert second.revision != first.revision
    assert [path.read_text() for _, path in second.files] == ['{"text": "new"}\n', '{"text": "b.jsonl"}\n']
    assert first.files[0][1].read_text() == '{"text": "a.jsonl"}\n'  # a run that goes on meanwhile reads what it read
    assert len(list(objects.iterdir())) == 3


def test_a_file_that_lost_its_end_is_brought_again(data: str, sources: Sources, tmp_path: Path) -> None:
    (_, file), *_ = sources.files(f"{data}/a.jsonl", SUFFIXES).files
    file.resolve().write_bytes(b"{")
    assert sources.files(f"{data}/a.jsonl", SUFFIXES).files[0][1].read_text() == '{"text": "a.jsonl"}\n'


BRING = """
import sys
from pathlib import Path
from ytrain.sources import Sources
folder = Path(sys.argv[1])
sources = Sources(claims={}, config_maps={}, base_dir=folder, scratch=folder, cache=folder / "cache")
print(sources.resolve(sys.argv[2]).path)
"""


def test_several_processes_bring_a_model_once(bucket: TestBucket, tmp_path: Path) -> None:
    bucket.put("large/config.json", b"{}")
    bucket.put("large/model.safetensors", os.urandom(30_000_000))
    url = urlsplit(bucket.environment["AWS_ENDPOINT_URL"])
    with Relay((url.hostname or "", url.port or 0)) as relay:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", BRING, str(tmp_path), f"s3://{bucket.name}/large"],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"AWS_ENDPOINT_URL": relay.url},
            )
            for _ in range(2)
        ]
        folders = {rank.communicate()[0] for rank in ranks}
    assert [rank.returncode for rank in ranks] == [0, 0] and len(folders) == 1
    assert 30_000_000 < relay.answered < 40_000_000


def test_a_killed_download_leaves_nothing_that_counts_and_is_taken_up_again(
    bucket: TestBucket, sources: Sources, tmp_path: Path
) -> None:
    content = os.urandom(30_000_000)
    bucket.put("large/config.json", b"{}")
    bucket.put("large/model.safetensors", content)
    url, uri = urlsplit(bucket.environment["AWS_ENDPOINT_URL"]), f"s3://{bucket.name}/large"
    with Relay((url.hostname or "", url.port or 0), stall_after=20_000_000) as relay:
        environment = os.environ | {"AWS_ENDPOINT_URL": relay.url}
        rank = subprocess.Popen([sys.executable, "-c", BRING, str(tmp_path), uri], env=environment)
        relay.stalled.wait()
        rank.kill()
        rank.wait()
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert any("partial" in path.parts for path in left)
    assert not any(path.suffix == ".safetensors" for path in left)
    assert (sources.resolve(uri).path / "model.safetensors").read_bytes() == content


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


def test_a_download_tells_how_far_it_is_and_ends_when_told(
    bucket: TestBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ytrain.sources.bucket.TELL_SECONDS", 0.0)
    for i in range(20):
        bucket.put(f"many/{i}.jsonl", b"{}" * 100_000)
    said: list[str] = []

    def tell(words: str) -> None:
        said.append(words)
        raise KeyboardInterrupt

    sources = Sources(
        claims={}, config_maps={}, base_dir=tmp_path, scratch=tmp_path, cache=tmp_path / "cache", tell=tell
    )
    with pytest.raises(KeyboardInterrupt):
        sources.files(f"s3://{bucket.name}/many", SUFFIXES)
    assert re.fullmatch(rf"s3://{bucket.name}/many: \d of 4 MB here", said[0]) and len(said) == 1


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


def test_boto3_is_for_those_who_use_it() -> None:
    code = "import sys, ytrain.sources; print([name for name in sys.modules if name.startswith('boto')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


class Relay:
    """Passes connections on to a server, and what it answers back, until it is told to fail."""

    def __init__(self, to: tuple[str, int], *, stall_after: int | None = None, break_after: int | None = None) -> None:
        self._to = to
        self._stall_after, self._break_after = stall_after, break_after
        self.answered = 0
        self.stalled = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            for source, sink, counted in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        for block in self._blocks(source):
            if counted:
                with self._lock:
                    self.answered += len(block)
                if self._break_after is not None and self.answered > self._break_after:
                    break
                if self._stall_after is not None and self.answered > self._stall_after:
                    self.stalled.set()
                    self._ended.wait()
            try:
                sink.sendall(block)
            except OSError:
                break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the other thread too, which closing would not

    @staticmethod
    def _blocks(source: socket.socket) -> Iterator[bytes]:
        try:
            while block := source.recv(1 << 16):
                yield block
        except OSError:
            return
