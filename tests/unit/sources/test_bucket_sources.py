"""Models and data from a bucket: what is brought, once, at which state."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.buckets import TestBucket
from tests.unit.sources.conftest import MODEL, sources_of
from tests.unit.sources.relay import Relay

from ytrain.sources import Sources
from ytrain.sources.s3 import matches
from ytrain_api.errors import DataError, SpecError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("aws")]
SUFFIXES = frozenset({".jsonl"})


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
    seen = sources_of(tmp_path, weights=False).resolve(model)
    assert sorted(path.name for path in seen.path.iterdir() if path.exists()) == ["config.json", "tokenizer.json"]
    assert (seen.path / "model.safetensors").is_symlink()  # who looks what the folder has finds its name
    brought = sources_of(tmp_path).resolve(model)
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


def test_boto3_is_for_those_who_use_it() -> None:
    code = "import sys, ytrain.sources; print([name for name in sys.modules if name.startswith('boto')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
