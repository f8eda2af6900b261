"""Models and data from the Hub: what is fetched, at which commit, and what a user reads when it fails."""

import pytest

from ytrain.sources import Sources
from ytrain_api.errors import SpecError, TransientError

pytestmark = pytest.mark.unit
SUFFIXES = frozenset({".jsonl"})
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_model_comes_as_safetensors_at_a_pinned_commit_without_anything_executable(
    hub: str, sources: Sources
) -> None:
    model = sources.resolve("hf://acme/tiny@main")
    assert model.revision == COMMIT
    assert sorted(path.name for path in model.path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_model_with_pickled_weights_only_is_refused(hub: str, sources: Sources) -> None:
    with pytest.raises(SpecError, match=r"hf://acme/pickled: holds no weights as safetensors.*Convert"):
        sources.resolve("hf://acme/pickled")


@pytest.mark.parametrize("path", ["/data", "/data/*.jsonl", ""])
def test_the_data_files_of_a_folder_a_glob_or_a_repository(hub: str, sources: Sources, path: str) -> None:
    found = sources.files(f"hf://datasets/acme/chats@main{path}", SUFFIXES)
    assert found.revision == COMMIT
    prefix = "hf://datasets/acme/chats@0123456789ab/data/"
    assert [name for name, _ in found.files] == [prefix + "a.jsonl", prefix + "b.jsonl"]
    assert found.files[0][1].read_text() == '{"text": "a"}\n'


def test_one_data_file(hub: str, sources: Sources) -> None:
    found = sources.files("hf://datasets/acme/chats@main/data/b.jsonl", SUFFIXES)
    assert [path.name for _, path in found.files] == ["b.jsonl"]


def test_an_unknown_repository_is_a_fault_of_the_job(hub: str, sources: Sources) -> None:
    with pytest.raises(SpecError, match=r"hf://acme/nowhere: the Hub has no such model"):
        sources.resolve("hf://acme/nowhere")


def test_an_unknown_revision_is_named(hub: str, sources: Sources) -> None:
    with pytest.raises(SpecError, match=r"no revision 'v9'"):
        sources.resolve("hf://acme/tiny@v9")


def test_without_a_network_the_cache_serves_what_was_fetched_before(
    hub: str, sources: Sources, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    fetched = sources.resolve("hf://acme/tiny@main")
    request.getfixturevalue("no_hub")
    assert sources.resolve("hf://acme/tiny@main") == fetched


def test_without_network_and_cache_the_fault_is_transient_and_says_what_to_do(no_hub: None, sources: Sources) -> None:
    with pytest.raises(TransientError, match=r"hf://acme/tiny: the Hub cannot be reached.*hf download acme/tiny"):
        sources.resolve("hf://acme/tiny")
