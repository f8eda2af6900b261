"""Data that cannot be used: the message says which file and line, what is wrong, and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from ytrain.data import DataSource, PreparedData, TokenSettings, prepare
from ytrain.data.keys import RecordKind
from ytrain_api.errors import DataError, SpecError

pytestmark = pytest.mark.unit
MakeTokenizer = Callable[[str | None], PreTrainedTokenizerFast]
WriteSource = Callable[..., DataSource]
Prepare = Callable[..., PreparedData]

GOOD = '{"prompt": "Hi there", "response": "Hello"}'


@pytest.fixture
def prepared(make_tokenizer: MakeTokenizer, tmp_path: Path) -> Prepare:
    def run(
        source: DataSource,
        family: str | None = "smollm2",
        bad: float = 0.01,
        kind: RecordKind = "chat",
        max_tokens: int = 100,
        **settings: object,
    ) -> PreparedData:
        return prepare(
            [source],
            make_tokenizer(family),
            TokenSettings(max_tokens=max_tokens, kind=kind, **settings),  # type: ignore[arg-type]
            tmp_path / "cache",
            max_bad_fraction=bad,
            skipped=tmp_path / "skipped.jsonl",
        )

    return run


def test_a_broken_line_in_the_middle_costs_that_line(
    write_source: WriteSource, prepared: Prepare, tmp_path: Path
) -> None:
    result = prepared(write_source("\n".join([GOOD, '{"prompt": "Hi', GOOD])), bad=0.5)
    assert [result.dataset[index].line for index in range(len(result.dataset))] == [1, 3]
    assert (result.report.read, result.report.used, result.report.skipped) == (3, 2, 1)
    assert result.report.reasons == {"cannot be decoded": 1}
    [line] = (tmp_path / "skipped.jsonl").read_text().splitlines()
    reason = "cannot be decoded: Unterminated string starting at column 12"
    assert json.loads(line) == {"source": "train.jsonl", "line": 2, "reason": reason}


def test_records_of_mixed_formats(write_source: WriteSource, prepared: Prepare) -> None:
    records = [
        GOOD,
        '{"instruction": "Hi there", "input": "", "output": "Hello"}',
        '{"question": "Hi there", "answer": "Hello"}',
        '{"conversations": [{"from": "human", "value": "Hi there"}, {"from": "gpt", "value": "Hello"}]}',
        '{"history": [["Hi there", "Hello"]]}',
    ]
    dataset = prepared(write_source("\n".join(records))).dataset
    assert len({dataset[index].input_ids.tobytes() for index in range(len(dataset))}) == 1
    assert len(dataset) == 5


def test_more_bad_records_than_allowed_end_the_run_and_the_first_ten_are_listed(
    write_source: WriteSource, prepared: Prepare, tmp_path: Path
) -> None:
    empty = '{"prompt": "Hi", "response": ""}'
    source = write_source("\n".join([*[GOOD] * 88, *[empty] * 12]))
    with pytest.raises(DataError) as error:
        prepared(source, bad=0.1)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "data.train: 12 of 100 records cannot be used (12.0%), more than data.maxBadFraction (10.0%) allows. Correct"
        " them, or raise data.maxBadFraction to train without them. The first of those left out:"
    )
    assert lines[1:] == [f"  train.jsonl:{line}: empty answer: response" for line in range(89, 99)]
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 12
    assert prepared(source, bad=0.12).report.bad == 12


def test_all_records_left_out(write_source: WriteSource, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"none of the 2 records can be used; 2 are longer than data.maxTokens \(8\).*"):
        prepared(write_source(f"{GOOD}\n{GOOD}"), max_tokens=8)
    with pytest.raises(DataError, match=r"none of the 1 records can be used\..*\n  train.jsonl:1: no known format"):
        prepared(write_source('{"x": 1}'), bad=1.0)


def test_a_repeat_that_leaves_nothing(write_source: WriteSource, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"data.train: with these values of repeat the first epoch sees no record"):
        prepared(write_source(GOOD, repeat=0.3))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", "\n \n"),
        ("a.json", ""),
        ("a.json", "[]"),
        ("a.csv", "prompt,response\n"),
    ],
)
def test_an_empty_file(write_source: WriteSource, prepared: Prepare, name: str, content: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: the file holds no record. Remove it from the data, or fill it"):
        prepared(write_source(content, name))


def test_a_file_that_is_not_utf8_leaves_nothing_half_written(
    write_source: WriteSource, prepared: Prepare, tmp_path: Path
) -> None:
    source = write_source(GOOD.encode() + b'\n{"prompt": "caf\xe9", "response": "x"}')
    with pytest.raises(DataError, match=r"train.jsonl:2: the file is not UTF-8: byte 0xe9 at offset \d+ .*iconv"):
        prepared(source)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_templates_words_are_the_reason(write_source: WriteSource, prepared: Prepare) -> None:
    source = write_source('{"system": "Be helpful", "prompt": "Hi", "response": "Hello"}')
    message = r"train.jsonl:1: the chat template refuses the record: System role not supported"
    with pytest.raises(DataError, match=message):
        prepared(source, "gemma")


def test_a_template_without_assistant_turn(write_source: WriteSource, prepared: Prepare) -> None:
    template = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    message = r"train.jsonl:1: the chat template writes nothing for an assistant turn"
    with pytest.raises(DataError, match=message):
        prepared(write_source(GOOD), chat_template=template)


def test_a_text_of_one_token_has_nothing_to_learn(write_source: WriteSource, prepared: Prepare) -> None:
    result = prepared(write_source('{"text": "Hi there"}\n{"text": "Hi"}'), None, kind="text", bad=0.5)
    assert result.report.supervised_tokens == 3  # there, end of text; end of text
    template = "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"train.jsonl:1: no token to learn"):
        prepared(write_source('{"prompt": "Hi", "response": "x"}'), chat_template=template)


def test_a_token_that_the_model_lacks(write_source: WriteSource, prepared: Prepare) -> None:
    data = write_source("\n".join(['{"prompt": "Hi", "response": "Hi"}', GOOD]))
    whole = prepared(data).dataset
    id_ = max(whole[1].input_ids.tolist())
    assert id_ > max(whole[0].input_ids.tolist())
    report = prepared(data, bad=0.5, vocabulary=id_).report
    assert (report.used, report.reasons) == (1, {"a token that the model does not have": 1})
    assert f"(id {id_}); its vocabulary has {id_} tokens" in report.first_skipped[0].reason
    assert prepared(data, vocabulary=id_ + 1).report.bad == 0


def test_half_a_surrogate_pair_is_no_character(write_source: WriteSource, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"train.jsonl:1: half of a surrogate pair: \\ud800"):
        prepared(write_source('{"prompt": "Hi", "response": "\\ud800"}'))


def test_plain_text_among_chats_and_the_reverse(write_source: WriteSource, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"train.jsonl:1: plain text among chats"):
        prepared(write_source('{"text": "Hi"}'))
    with pytest.raises(DataError, match=r"train.jsonl:1: a chat among plain texts"):
        prepared(write_source(GOOD), kind="text")


def test_a_tokenizer_without_end_of_sequence(
    write_source: WriteSource, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(SpecError, match="no end-of-sequence token"):
        prepare([write_source('{"text": "Hi"}')], tokenizer, TokenSettings(max_tokens=9), tmp_path / "cache")
