"""From sources to a data set: overlong records, repeats, the cache, and what the report counts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from ytrain.data import DataReport, DataSource, PreparedData, TokenSettings, prepare, runs
from ytrain.data.overlong import Overlong
from ytrain_api.errors import DataError

pytestmark = pytest.mark.unit
MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]
WriteSource = Callable[..., DataSource]

SHORT = '{"prompt": "Hi there", "response": "Hello"}'
LONG = '{"prompt": "Hi there", "response": "Hello Hello Hello Hello Hello Hello Hello Hello Hello Hello"}'
SETTINGS = TokenSettings(max_tokens=100, kind="chat")


def _labels(prepared: PreparedData, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    samples = [prepared.dataset[index] for index in range(len(prepared.dataset))]
    return [tokenizer.decode(sample.input_ids[sample.supervised]) for sample in samples]


@pytest.mark.parametrize(
    ("policy", "labels", "counts"),
    [
        ("skip", ["Hello<|im_end|>"], {"used": 1, "overlong": 1}),
        ("truncate", ["Hello<|im_end|>", "Hello Hello Hello"], {"used": 2, "truncated": 1}),
        (
            "split",
            ["Hello<|im_end|>", "Hello Hello Hello", " Hello Hello Hello Hello Hello Hello Hello<|im_end|>"],
            {"used": 2, "split": 1},
        ),
    ],
)
def test_a_chat_longer_than_max_tokens(
    write_source: WriteSource,
    make_tokenizer: MakeTokenizer,
    tmp_path: Path,
    policy: Overlong,
    labels: list[str],
    counts: dict[str, int],
) -> None:
    tokenizer = make_tokenizer("smollm2")
    short = prepare([write_source(SHORT)], tokenizer, SETTINGS, tmp_path / "cache")
    prompt = int(short.dataset.lengths[0]) - 2  # less Hello and <|im_end|>
    settings = replace(SETTINGS, overlong=policy, max_tokens=prompt + 3)
    result = prepare([write_source(f"{SHORT}\n{LONG}")], tokenizer, settings, tmp_path / "cache")
    assert _labels(result, tokenizer) == labels
    report = result.report
    wanted = {"read": 2, "bad": 0, "overlong": 0, "truncated": 0, "split": 0} | counts
    assert {name: getattr(report, name) for name in wanted} == wanted
    assert report.reasons == ({"longer than data.maxTokens": 1} if policy == "skip" else {})


def test_a_truncated_chat_without_label_is_left_out(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, overlong="truncate", max_tokens=8)
    with pytest.raises(DataError, match=r"train.jsonl:1: no label left within data.maxTokens: \d+ tokens"):
        prepare([write_source(SHORT)], make_tokenizer("smollm2"), settings, tmp_path / "cache")


def test_an_overlong_text_is_split_so_that_every_token_trains_once(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(None)
    text = "Hi there Hello Ask again Sure thing Why not"
    settings = TokenSettings(max_tokens=4, kind="text", overlong="split")
    result = prepare([write_source(text + "\n", "a.txt")], tokenizer, settings, tmp_path / "cache")
    assert "".join(_labels(result, tokenizer)) == text.removeprefix("Hi") + "\n<|endoftext|>"
    assert result.dataset.lengths.max() == 4


def test_a_thinking_chat_of_two_turns_is_two_samples_of_one_record(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    record = '{"history": [["Hi", "Hello"]], "prompt": "Why", "response": "Why not"}'
    report = prepare([write_source(record)], make_tokenizer("qwen3"), SETTINGS, tmp_path / "cache").report
    assert (report.read, report.used, report.samples, report.split_chats, report.split) == (1, 1, 2, 1, 0)


def test_repeats_count_in_an_epochs_tokens_and_not_in_its_records(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    one = write_source(f"{SHORT}\n{LONG}", "one.jsonl", repeat=3)
    two = write_source(SHORT, "two.jsonl")
    result = prepare([one, two], make_tokenizer("smollm2"), SETTINGS, tmp_path / "cache")
    dataset, report = result.dataset, result.report
    samples = [dataset[index] for index in range(len(dataset))]
    assert [(sample.source, sample.line) for sample in samples] == [
        *[("one.jsonl", 1), ("one.jsonl", 2)] * 3,
        ("two.jsonl", 1),
    ]
    assert dataset.lengths.tolist() == [len(sample.input_ids) for sample in samples]
    assert dataset.supervised_counts.tolist() == [int(sample.supervised.sum()) for sample in samples]
    assert (report.read, report.used, report.samples) == (3, 3, 7)
    assert report.tokens == dataset.lengths.sum()
    assert report.supervised_tokens == dataset.supervised_counts.sum()
    assert DataReport.model_validate(report.to_json()) == report


def test_samples_are_read_by_number_only_within_the_set(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    dataset = prepare([write_source(SHORT)], make_tokenizer("smollm2"), SETTINGS, tmp_path / "cache").dataset
    assert (dataset[0].input_ids.dtype, dataset[0].supervised.dtype) == (np.int32, np.bool_)
    with pytest.raises(IndexError):
        dataset[1]


def test_many_samples_fill_many_batches(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ytrain.data.cache._BATCH_TOKENS", 64)
    monkeypatch.setattr("ytrain.data.tokenising._BATCH_CHARACTERS", 500)
    records = [f'{{"prompt": "Ask {number}", "response": "{"Hello " * (number % 7 + 1)}"}}' for number in range(100)]
    tokenizer = make_tokenizer("smollm2")
    result = prepare([write_source("\n".join(records))], tokenizer, SETTINGS, tmp_path / "cache")
    assert _labels(result, tokenizer) == ["Hello " * (number % 7 + 1) + "<|im_end|>" for number in range(100)]
    assert [result.dataset[index].line for index in range(100)] == list(range(1, 101))


def _entries(cache: Path) -> dict[str, int]:
    return {path.name: (path / "tokens.arrow").stat().st_ino for path in cache.iterdir()}


def test_a_second_preparation_finds_the_tokens_in_the_cache(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    cache, skipped = tmp_path / "cache", tmp_path / "skipped.jsonl"
    source = write_source(f"{SHORT}\nbroken")
    first = prepare([source], make_tokenizer("smollm2"), SETTINGS, cache, max_bad_fraction=0.5, skipped=skipped)
    entries, listed = _entries(cache), skipped.read_text()
    again = prepare([source], make_tokenizer("smollm2"), SETTINGS, cache, max_bad_fraction=0.5, skipped=skipped)
    assert (_entries(cache), again.report, skipped.read_text()) == (entries, first.report, listed)
    prepare([replace(source, repeat=2)], make_tokenizer("smollm2"), SETTINGS, cache, max_bad_fraction=0.5)
    assert _entries(cache) == entries


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, max_tokens=99),
        replace(SETTINGS, system_prompt="Be helpful"),
        replace(SETTINGS, supervise="lastTurn"),
        replace(SETTINGS, chat_template_args={"x": 1}),
        replace(SETTINGS, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"),
    ],
)
def test_other_settings_are_another_entry(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path, settings: TokenSettings
) -> None:
    for each in (SETTINGS, settings):
        prepare([write_source(SHORT)], make_tokenizer("smollm2"), each, tmp_path / "cache")
    assert len(_entries(tmp_path / "cache")) == 2


def test_other_data_and_another_tokenizer_are_another_entry(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    prepare([write_source(SHORT)], make_tokenizer("smollm2"), SETTINGS, tmp_path / "cache")
    prepare([write_source(LONG)], make_tokenizer("smollm2"), SETTINGS, tmp_path / "cache")
    prepare([write_source(LONG)], make_tokenizer("llama3"), SETTINGS, tmp_path / "cache")
    assert len(_entries(tmp_path / "cache")) == 3


def test_the_digest_of_the_data_depends_on_the_content_of_the_files_alone(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    def digest(*sources: DataSource, settings: TokenSettings = SETTINGS) -> str:
        return prepare(sources, make_tokenizer("smollm2"), settings, tmp_path / "cache").report.digest

    one, same, other = (
        write_source(text, name) for text, name in ((SHORT, "1.jsonl"), (SHORT, "2.jsonl"), (LONG, "3.jsonl"))
    )
    assert digest(one) == digest(same) == digest(one, settings=replace(SETTINGS, max_tokens=99))
    assert len({digest(one), digest(other), digest(one, other), digest(other, one)}) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "report"])
def test_a_damaged_entry_is_written_again(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path, damage: str
) -> None:
    tokenizer = make_tokenizer("smollm2")
    source = write_source(SHORT)
    expected = _labels(prepare([source], tokenizer, SETTINGS, tmp_path / "cache"), tokenizer)
    [entry] = (tmp_path / "cache").iterdir()
    content = bytearray((entry / "tokens.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "report":
        (entry / "report.json").write_text("{")
    else:
        (entry / "tokens.arrow").write_bytes(content if damage == "flip" else content[:100])
    assert _labels(prepare([source], tokenizer, SETTINGS, tmp_path / "cache"), tokenizer) == expected
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [entry.name]


def test_a_sample_is_shown_in_runs(write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("llama3")
    record = '{"history": [["Hi", "Hello"]], "prompt": "Why", "response": "Why not"}'
    sample = prepare([write_source(record)], tokenizer, SETTINGS, tmp_path / "cache").dataset[0]
    user, assistant = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
    assert runs(sample, tokenizer) == [
        (f"<|begin_of_text|>{user}Hi<|eot_id|>{assistant}", False),
        ("Hello<|eot_id|>", True),
        (f"{user}Why<|eot_id|>{assistant}", False),
        ("Why not<|eot_id|>", True),
    ]
