"""Files, claims and ConfigMaps: what a URI resolves to, what is left out, and where it may not lead."""

from pathlib import Path

import pytest

from ytrain.sources import Sources
from ytrain_api.errors import DataError, SpecError

pytestmark = pytest.mark.unit
SUFFIXES = frozenset({".jsonl", ".txt"})


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    for name in ("chats/b.jsonl", "chats/a.jsonl", "chats/more/c.txt", "chats/notes.docx", "chats/.old/d.jsonl"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


@pytest.fixture
def sources(tmp_path: Path, claim: Path) -> Sources:
    return Sources(
        claims={"team": claim},
        config_maps={"job-data": {"train.jsonl": b'{"text": "x"}\n', "template.jinja": b"{{ messages }}"}},
        base_dir=tmp_path,
        scratch=tmp_path / "scratch",
        cache=tmp_path / "cache",
    )


def test_a_folder_is_walked_in_order_and_says_what_it_ignored(sources: Sources) -> None:
    found = sources.files("pvc://team/chats", SUFFIXES)
    assert [name for name, _ in found.files] == [
        "pvc://team/chats/a.jsonl",
        "pvc://team/chats/b.jsonl",
        "pvc://team/chats/more/c.txt",
    ]
    assert sorted(found.ignored) == ["pvc://team/chats/.old/d.jsonl", "pvc://team/chats/notes.docx"]


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("pvc://team/chats/a.jsonl", ["a.jsonl"]),
        ("pvc://team/chats/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("pvc://team/**/*.txt", ["c.txt"]),
        ("file://./claim/chats/[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("file://./claim/../claim/chats/a.jsonl", ["a.jsonl"]),
        ("configmap://job-data/train.jsonl", ["train.jsonl"]),
    ],
)
def test_a_file_and_a_glob(sources: Sources, uri: str, names: list[str]) -> None:
    assert [path.name for _, path in sources.files(uri, SUFFIXES).files] == names


def test_an_absolute_file_is_called_by_its_path(sources: Sources, claim: Path) -> None:
    path = claim / "chats/a.jsonl"
    assert sources.files(f"file://{path}", SUFFIXES).files == ((str(path), path),)
    assert sources.resolve(f"file://{path}").path == path


def test_a_key_of_a_config_map_is_a_file(sources: Sources) -> None:
    assert sources.resolve("configmap://job-data/template.jinja").path.read_text() == "{{ messages }}"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pvc://models/x", r"the claim 'models' has no folder here \(known: team\).*--claim models=DIR"),
        ("pvc://team/../secret", r"leads out of .*claim"),
        ("configmap://other/key", r"no ConfigMap 'other' is at hand \(known: job-data\).*Add it to the job file"),
        ("configmap://job-data/nokey", r"no key 'nokey' \(keys: template.jinja, train.jsonl\)"),
        ("pvc://team/nothing", r"no such file or folder \(.*nothing\)\. Check the path\."),
        ("pvc://team/chat", r"no such file or folder \(.*chat\)\. Did you mean chats\?"),
        ("s3://", r"incomplete. Write s3://bucket/prefix"),
        ("ftp://host/data", r"not a known source.*pvc://claim/path"),
        ("hf://justaname", r"incomplete. Write hf://owner/name@revision"),
        ("file://relative", r"incomplete. Write file:///path"),
    ],
)
def test_what_cannot_be_resolved_is_a_fault_of_the_job(sources: Sources, uri: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        sources.resolve(uri)
    assert str(error.value).startswith(uri)


def test_a_missing_claim_folder_is_named(tmp_path: Path) -> None:
    sources = Sources(
        claims={"team": tmp_path / "no"}, config_maps={}, base_dir=tmp_path, scratch=tmp_path, cache=tmp_path
    )
    with pytest.raises(SpecError, match=r"the folder .*/no of the claim 'team' does not exist"):
        sources.resolve("pvc://team/x")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pvc://team/absent.jsonl", r"no such file or folder"),
        ("pvc://team/chats/aa.jsonl", r"Did you mean a\.jsonl\?"),
        ("pvc://team/*.parquet", r"no glob that matches"),
        (
            "pvc://team/chats/notes.docx",
            r"no readable file \(found pvc://team/chats/notes.docx\). Readable are .jsonl .txt",
        ),
    ],
)
def test_data_that_are_not_there_are_a_fault_of_the_data(sources: Sources, uri: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sources.files(uri, SUFFIXES)


def test_what_may_be_compressed_is_told_too(sources: Sources) -> None:
    with pytest.raises(DataError, match=r"Readable are .jsonl .txt, most also as .gz .zst\."):
        sources.files("pvc://team/chats/notes.docx", SUFFIXES | {".jsonl.gz", ".jsonl.zst", ".txt.gz"})


def test_an_empty_folder(sources: Sources, claim: Path) -> None:
    (claim / "empty").mkdir()
    with pytest.raises(DataError, match=r"pvc://team/empty: the folder .* is empty"):
        sources.files("pvc://team/empty", SUFFIXES)


def test_links_do_not_lead_out_of_a_claim(sources: Sources, claim: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text("{}")
    (claim / "link.jsonl").symlink_to(secret)
    (claim / "folder").symlink_to(tmp_path)
    with pytest.raises(SpecError, match="leads out of"):
        sources.resolve("pvc://team/link.jsonl")
    with pytest.raises(SpecError, match="leads out of"):
        sources.resolve("pvc://team/folder/secret.jsonl")
    with pytest.raises(DataError, match=r"pvc://team/link.jsonl: a link that leads out"):
        sources.files("pvc://team/*.jsonl", SUFFIXES)


def test_a_link_to_a_folder_inside_a_folder_is_not_followed_but_told(sources: Sources, claim: Path) -> None:
    (claim / "chats" / "again").symlink_to(claim / "chats" / "more")
    (claim / "chats" / "gone.jsonl").symlink_to(claim / "nowhere")
    found = sources.files("pvc://team/chats", SUFFIXES)
    assert len(found.files) == 3
    assert {"pvc://team/chats/again", "pvc://team/chats/gone.jsonl"} <= set(found.ignored)


def test_a_config_map_key_cannot_write_elsewhere(tmp_path: Path) -> None:
    sources = Sources(
        claims={},
        config_maps={"m": {"../../x": b"", "a": b""}},
        base_dir=tmp_path,
        scratch=tmp_path / "scratch",
        cache=tmp_path / "cache",
    )
    with pytest.raises(SpecError, match="leads out of"):
        sources.resolve("configmap://m/a")
