"""Data that cannot be trained on: the run ends before it began, says why, and goes once they are mended."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended
from run_folders import write_job

pytestmark = pytest.mark.e2e

Here = Callable[..., Ended]


def test_data_that_are_all_too_long(ytrain_here: Here, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder, {"data.maxTokens": 8})
    words = ["none of the 20 records can be used", "20 are longer than data.maxTokens (8)", "chats.jsonl:1"]
    ytrain_here(place, "run", "tiny.yaml").expect(3, *words)
    assert len((place / "runs/tiny/skipped.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["chats.jsonl: the file holds no record"]),
        (b'{"messages": []}\n' * 9, ["9 of 9 records cannot be used", "chats.jsonl:1"]),
        (b"\xff\xfe\x00", ["UTF-16", "chats.jsonl"]),
        (b'{"prompt": "caf\xe9"}\n', ["not UTF-8", "byte 0xe9"]),
    ],
)
def test_wrong_data_leave_nothing_behind_and_may_be_mended(
    ytrain_here: Here, place: Path, model_folder: Path, content: bytes, words: list[str]
) -> None:
    good = (place / "chats.jsonl").read_bytes()
    (place / "chats.jsonl").write_bytes(content)
    write_job(place, model_folder, {"optimization.epochs": 1})
    ytrain_here(place, "run", "tiny.yaml").expect(3, *words)
    run = place / "runs/tiny"
    left = {path.name for path in run.iterdir()}
    assert left <= {".lock", ".identity", ".inputs", "job.yaml", "skipped.jsonl", "result.json", "report.html"}
    assert json.loads((run / "result.json").read_text())["state"] == "Failed"
    (place / "chats.jsonl").write_bytes(good)
    ytrain_here(place, "run", "tiny.yaml").expect(0, "done")
