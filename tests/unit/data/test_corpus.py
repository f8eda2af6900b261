"""Folders of texts as continued pre-training takes them: every token accounted for, and whatever lies among them."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ytrain.data import DataSource, PreparedData, TokenSettings, pace, prepare, reading, tokenising, workers
from ytrain.data.overlong import Overlong
from ytrain.data.records import Text
from ytrain_api.errors import DataError

pytestmark = pytest.mark.unit
MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]
Corpus = Callable[..., PreparedData]

TEXT = "Hi there Hello Ask again Sure thing Why not\n"


def zstd(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


@pytest.fixture
def corpus(make_tokenizer: MakeTokenizer, tmp_path: Path) -> Corpus:
    """Prepares files, given by name and content, as one source of a cpt job."""

    def run(files: dict[str, bytes], bad: float = 0.0, kind: str = "text", **settings: object) -> PreparedData:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        source = DataSource(tuple((name, tmp_path / name) for name in files))
        chosen = TokenSettings(**{"max_tokens": 8, "kind": kind, "overlong": "split"} | settings)  # type: ignore[arg-type]
        return prepare([source], make_tokenizer(None), chosen, tmp_path / "cache", max_bad_fraction=bad)

    return run


def learned(prepared: PreparedData, tokenizer: PreTrainedTokenizerFast) -> str:
    samples = [prepared.dataset[i] for i in range(len(prepared.dataset))]
    return "".join(tokenizer.decode(sample.input_ids[sample.supervised]) for sample in samples)


@pytest.mark.parametrize(
    "name", ["a.txt.gz", "a.txt.zst", "a.md", "a.jsonl.gz", "a.jsonl.zst", "a.csv.gz", "a.json.zst"]
)
def test_the_same_text_from_any_file(corpus: Corpus, make_tokenizer: MakeTokenizer, name: str) -> None:
    content = {
        ".txt": TEXT.encode(),
        ".md": TEXT.encode(),
        ".json": json.dumps([{"text": TEXT}]).encode(),
        ".jsonl": json.dumps({"text": TEXT}).encode(),
        ".csv": f'text\n"{TEXT}"\n'.encode(),
    }[reading.data_suffix(Path(name))]
    compress = {".gz": gzip.compress, ".zst": zstd}.get(Path(name).suffix, bytes)
    found = corpus({name: compress(content)})
    assert learned(found, make_tokenizer(None)) == TEXT.removeprefix("Hi") + "<|endoftext|>"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_long_text_in_pieces_loses_its_first_token_only(
    corpus: Corpus, make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reading, "TEXT_BLOCK_CHARACTERS", 30)
    monkeypatch.setattr(tokenising, "TEXT_BLOCK_CHARACTERS", 50)
    monkeypatch.setattr(tokenising, "_BATCH_CHARACTERS", 50)
    content = TEXT * 5 if name == "a.txt" else json.dumps({"text": TEXT * 5})
    found = corpus({name: content.encode(), "c.txt": TEXT.encode()})
    whole = TEXT.removeprefix("Hi") + TEXT * 4 + "<|endoftext|>" + TEXT.removeprefix("Hi") + "<|endoftext|>"
    assert learned(found, make_tokenizer(None)) == whole
    assert found.report.context_tokens == 2
    assert (found.report.read, found.report.used, found.report.split) == (2, 2, 2)


@given(text=st.text("ab \n", min_size=1), size=st.integers(1, 9), begins=st.booleans(), ends=st.booleans())
def test_pieces_are_the_text(text: str, size: int, begins: bool, ends: bool) -> None:
    pieces = list(Text(text, begins=begins, ends=ends).pieces(size))
    assert "".join(piece.text for piece in pieces) == text
    assert all(0 < len(piece.text) <= size for piece in pieces)
    assert [piece.begins for piece in pieces] == [begins] + [False] * (len(pieces) - 1)
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [ends]


def test_pieces_end_where_lines_or_words_do() -> None:
    pieces = [piece.text for piece in Text("one two\nthree four five six").pieces(12)]
    assert pieces == ["one two\n", "three four ", "five six"]


WORDS = st.lists(st.sampled_from(["Hi", " there", " Hello", " thing"]), min_size=0, max_size=30).map("".join)


@settings(deadline=None, max_examples=50)  # it writes files
@given(texts=st.lists(WORDS, min_size=1, max_size=12), policy=st.sampled_from(["skip", "truncate", "split"]))
def test_tokens_in_are_tokens_learned_and_tokens_counted_as_lost(
    tmp_path_factory: pytest.TempPathFactory, make_tokenizer: MakeTokenizer, texts: list[str], policy: Overlong
) -> None:
    folder, tokenizer = tmp_path_factory.mktemp("counted"), make_tokenizer(None)
    lines = [json.dumps({"text": text}) for text in [*texts, TEXT]]
    (folder / "a.jsonl").write_text("\n".join(lines))
    settings = TokenSettings(max_tokens=12, kind="text", overlong=policy)
    source = DataSource((("a.jsonl", folder / "a.jsonl"),))
    report = prepare([source], tokenizer, settings, folder / "cache", max_bad_fraction=1.0).report
    whole = [text for text in [*texts, TEXT] if text]
    tokens_in = sum(len(tokenizer(text)["input_ids"]) + 1 for text in whole)  # an end each
    assert report.encoded_tokens == tokens_in
    assert report.encoded_tokens == report.supervised_tokens + report.context_tokens + report.left_out_tokens
    assert (report.left_out_tokens == 0) == (
        policy == "split" or all(len(tokenizer(t)["input_ids"]) < 12 for t in whole)
    )
    assert report.bad == len(texts) + 1 - len(whole)


def test_worker_processes_make_the_same_tokens(
    make_tokenizer: MakeTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "_BATCH_CHARACTERS", 100)
    lines = [{"text": TEXT * (i % 7)} for i in range(60)] + [{"prompt": "Hi there", "response": "Hello"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source, settings = DataSource((("a.jsonl", tmp_path / "a.jsonl"),)), TokenSettings(max_tokens=8, overlong="split")
    alone = prepare([source], make_tokenizer("smollm2"), settings, tmp_path / "alone", max_bad_fraction=1)
    monkeypatch.setattr(workers, "WORTHWHILE_BYTES", 0)
    shared = prepare([source], make_tokenizer("smollm2"), settings, tmp_path / "shared", max_bad_fraction=1)
    assert shared.report == alone.report
    assert len(shared.dataset) == len(alone.dataset) > 60
    for i in range(len(alone.dataset)):
        assert np.array_equal(shared.dataset[i].input_ids, alone.dataset[i].input_ids)
        assert np.array_equal(shared.dataset[i].supervised, alone.dataset[i].supervised)


def test_progress_tells_share_and_rates(
    make_tokenizer: MakeTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "TELL_SECONDS", 0.0)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode() * 9))
    source, told = DataSource((("a.txt.gz", tmp_path / "a.txt.gz"),)), []
    settings = TokenSettings(max_tokens=8, overlong="split")
    prepare([source], make_tokenizer(None), settings, tmp_path / "cache", tell=told.append)
    assert re.fullmatch(r"100% of 0 MB, 91 tokens, [\d,]+ tokens/s, \d+\.\d MB/s", told[-1]), told[-1]
    told.clear()
    prepare([source], make_tokenizer(None), settings, tmp_path / "cache", tell=told.append)
    assert told == []  # once for all runs


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty text"),
        (b" \n\n", "empty text"),
        (b"\x7fELF\x02\x01\x00\x00", "cannot be decoded: binary, not text: it holds a zero byte. Remove it"),
        (b"\x89PNG\r\n", "cannot be decoded: not UTF-8: byte 0x89 at offset 0"),
        (TEXT.encode("utf-16"), "cannot be decoded: UTF-16, not UTF-8. Convert it"),
    ],
)
def test_a_text_that_is_none_costs_that_text(corpus: Corpus, content: bytes, reason: str) -> None:
    files = {"a.txt": TEXT.encode(), "b.md": content, "c.txt": TEXT.encode()}
    report = corpus(files, bad=0.4).report
    assert (report.read, report.used, report.bad) == (3, 2, 1)
    assert str(report.first_skipped[0]).startswith(f"b.md:1: {reason}")
    with pytest.raises(DataError, match=r"1 of 3 records cannot be used \(33.3%\), more than data.maxBadFraction"):
        corpus(files, bad=0.3)


def test_a_folder_of_mixed_types_is_one_corpus(corpus: Corpus) -> None:
    found = corpus(
        {
            "a.txt": TEXT.encode(),
            "b.md": TEXT.encode(),
            "c.jsonl": json.dumps({"text": TEXT, "id": 7}).encode() + b'\n{"prompt": "Hi", "response": "Hello"}\n',
            "d.csv.gz": gzip.compress(f'id,output\n1,"{TEXT}"\n'.encode()),
        },
        bad=0.5,
    )
    assert (found.report.used, found.report.bad) == (4, 1)
    assert found.report.reasons == {"a chat among plain texts": 1}


@pytest.mark.parametrize(
    ("kind", "wanted"), [("text", r"wanted is text \(or output\)"), ("chat", r"wanted is one of the formats")]
)
def test_a_table_without_the_column_lists_those_there_are(
    corpus: Corpus, tmp_path: Path, kind: str, wanted: str
) -> None:
    pq.write_table(pa.table({"title": ["Hi"], "body": ["Hello"]}), tmp_path / "b.parquet")
    message = rf"b.parquet: no known format: its columns are title, body; {wanted}"
    with pytest.raises(DataError, match=message):
        corpus({"b.parquet": (tmp_path / "b.parquet").read_bytes()}, kind=kind)


@pytest.mark.parametrize("name", ["b.txt.gz", "b.jsonl.zst"])
def test_a_compressed_file_that_was_cut_off(corpus: Corpus, tmp_path: Path, name: str) -> None:
    content = b"\n".join(json.dumps({"text": TEXT * (i % 9)}).encode() for i in range(999))
    whole = gzip.compress(content) if name.endswith("gz") else zstd(content)
    with pytest.raises(DataError, match=rf"{name}: cannot be decompressed to its end .*Fetch it again, or remove it"):
        corpus({"a.txt": TEXT.encode(), name: whole[: len(whole) // 2], "c.txt": TEXT.encode()})
    assert not any((tmp_path / "cache").iterdir())


def test_a_file_in_the_middle_that_cannot_be_read(make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").symlink_to("/proc/self/mem")  # a file whose first byte nobody may read, not even root
    source = DataSource(tuple((name, tmp_path / name) for name in ("a.txt", "b.txt")))
    with pytest.raises(DataError, match=r"b.txt: cannot be read: Input/output error. Mend that, or remove the file"):
        prepare([source], make_tokenizer(None), TokenSettings(max_tokens=8), tmp_path / "cache")
