"""`ytrain check`, `ytrain crd` and the help as a person and a script see them."""

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from ytrain_api.crd import crd_yaml

pytestmark = pytest.mark.unit


def test_a_clean_job_exits_with_0_and_says_what_is_next(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write())
    assert ended.code == 0
    for words in ("20 records read", "12 steps in 3 epochs", "«10 is it<|im_end|>»", "at the peak", "Time"):
        assert words in ended.out
    assert f"nothing wrong found; next: ytrain run {place.file}" in ended.out


def test_processes_are_told_and_passed_on(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write(), "--processes", "2")
    assert "at the peak of 2 ranks" in ended.out
    assert "asks for 1 rank" in ended.out and "2 processes do the work of all" in ended.out
    assert f"next: ytrain run {place.file} --processes 2" in ended.out


@pytest.mark.parametrize(
    "options",
    [
        ["--cache", "tokens"],
        ["--device", "cpu", "--cache", "tokens"],
        ["--claim", "one=.", "--claim", "two=.", "--processes", "2", "--device", "cpu", "--cache", "my tokens"],
    ],
    ids=" ".join,
)
def test_what_is_next_can_be_copied_with_its_options(
    place: Any, ytrain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(place.folder)
    place.write()
    ended = ytrain("check", "job.yaml", *options)
    assert ended.out.rstrip().endswith(f"; next: ytrain run job.yaml {shlex.join(options)}")


def test_what_is_next_names_the_cache_of_the_environment(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write())
    assert ended.out.rstrip().endswith(f"; next: ytrain run {place.file} --cache {place.folder / 'cache'}")


def test_a_finding_exits_with_1(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write(output={"target": "file://./"}))
    assert ended.code == 1
    assert "error: spec.output.target: file://./" in ended.out and "1 finding" in ended.out


def test_a_faulty_file_exits_with_1_and_tells_every_fault(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write(optimization={"epochs": 0, "sead": 1}))
    assert ended.code == 1
    assert "spec.optimization.epochs" in ended.out and "did you mean seed" in ended.out and "2 findings" in ended.out


def test_a_wrong_option_is_no_finding_about_the_file(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write(), "--claim", "data")
    assert ended.code == 2 and "--claim data: write it as NAME=DIR" in ended.err


def test_json_is_all_that_is_on_stdout(place: Any, ytrain: Callable[..., Any]) -> None:
    ended = ytrain("check", place.write(), "--json")
    answer = json.loads(ended.out)
    assert ended.code == 0 and answer["findings"] == []
    assert answer["data"]["used"] == 20 and answer["plan"]["steps"] == 12
    assert answer["memory"]["estimatedBytes"] == sum(answer["memory"]["parts"].values())
    assert answer["time"]["seconds"] > 0 and answer["windows"] is None


@pytest.mark.parametrize("spec", [{"optimization": {"epochs": 0}}, {"data": {"train": [{"source": "file://./none"}]}}])
def test_json_of_a_fault(place: Any, ytrain: Callable[..., Any], spec: dict[str, Any]) -> None:
    ended = ytrain("check", place.write(**spec), "--json")
    (finding,) = json.loads(ended.out)["findings"]
    assert ended.code == 1 and "spec." in finding


def test_markup_and_control_characters_in_data_are_shown_as_they_are(place: Any, ytrain: Callable[..., Any]) -> None:
    turns = [("user", "[bold red]shout[/]"), ("assistant", "[/] \x1b[2J :smile:")]
    record = {"messages": [{"role": role, "content": text} for role, text in turns]}
    (place.folder / "odd[link].jsonl").write_text(json.dumps(record) + "\n")
    ended = ytrain("check", place.write(data={"train": [{"source": "file://./*.jsonl"}]}))
    assert "[bold red]shout[/]<|im_end|>" in ended.out and "«[/] ␛[2J :smile:<|im_end|>»" in ended.out
    assert "odd[link].jsonl:1" in ended.out and "\x1b[2J" not in ended.out


def test_skipped_records_are_listed_with_their_lines(place: Any, ytrain: Callable[..., Any]) -> None:
    with (place.folder / "chats.jsonl").open("a") as file:
        file.write("not json\n")
    data = {"train": [{"source": "file://./chats.jsonl"}], "maxBadFraction": 0.1}
    ended = ytrain("check", place.write(data=data))
    assert ended.code == 0
    assert "21 records read, 20 used, 1 skipped" in ended.out and "chats.jsonl:21: cannot be decoded" in ended.out


def test_crd_prints_the_definition(ytrain: Callable[..., Any]) -> None:
    ended = ytrain("crd")
    assert ended.code == 0 and ended.out == crd_yaml()


DEFAULTS = [
    ("run", "runs/NAME", "~/.cache/ytrain"),
    ("merge", "the one that the adapter names"),
    ("worker", "spec.workers.devices", "its address towards the launcher"),
]


@pytest.mark.parametrize(("command", "defaults"), [(command, defaults) for command, *defaults in DEFAULTS])
def test_help_tells_what_an_option_is_without_being_given(
    ytrain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str, defaults: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = ytrain(command, "--help")
    assert ended.code == 0 and all(default in ended.out for default in defaults)
