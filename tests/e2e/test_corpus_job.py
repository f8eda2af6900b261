"""A corpus job by the command line: what it leaves behind, stopped or not, by one rank or two."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Commands, Ended
from run_folders import files_of, read_lines, write_job
from tests.conftest import write_chats

pytestmark = pytest.mark.e2e

CORPUS: dict[str, Any] = {
    "sft": ...,
    "optimization": {"microBatchTokens": 200},  # several shards
    "corpus": {"clusters": {"minSize": 4}},
    "data.maxTokens": 200,
}
STORY = "once upon a time a fox met a hare in a wood where nobody had ever been before and they talked until night fell"


def records() -> list[dict[str, Any]]:
    """Records of several formats, of which some repeat others."""
    asked: list[dict[str, Any]] = [
        {"prompt": f"what is {i} and {i + 1}?", "response": f"{2 * i + 1}"} for i in range(30)
    ]
    asked += [{"instruction": "tell", "input": "", "output": STORY}, {"question": "tell", "answer": STORY + " again"}]
    asked += [{"messages": [{"role": "user", "content": "привет"}, {"role": "assistant", "content": "пока"}]}]
    return asked


def results(output: Path) -> list[bytes]:
    """The records that a job wrote; ytrain.json beside them names the work folder, which may differ."""
    return [(output / name).read_bytes() for name in ("scored.jsonl", "cleaned.jsonl")]


def write_corpus(directory: Path) -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in records()]
    lines.insert(3, '{"prompt": "no answer", "response": ""}')
    (directory / "records.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def whole(ytrain: Commands, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a corpus job has run to its end in the folder `whole`."""
    directory = tmp_path_factory.mktemp("corpus")
    write_corpus(directory)
    data = {"data.train": [{"source": "file://./records.jsonl"}], "data.maxBadFraction": 0.1}
    write_job(directory, model_folder, CORPUS | data)
    ended = ytrain(directory, "run", "tiny.yaml", "--workdir", "whole")
    ended.expect(0, "33 records scored", "likelyWrongLabel", "1 near-duplicates", "corpus.html", "data.train")
    return directory


def test_every_record_is_ranked_unchanged_with_its_scores_and_place(whole: Path) -> None:
    lines = read_lines(whole / "whole/output/scored.jsonl")
    assert [line["rank"] for line in lines] == list(range(1, 34))
    by_place = {line["line"]: line["record"] for line in lines}
    original = (whole / "records.jsonl").read_text().splitlines()
    assert by_place == {number: json.loads(text) for number, text in enumerate(original, start=1) if number != 4}
    wrong = [line["class"] == "likelyWrongLabel" for line in lines]
    assert wrong == sorted(wrong, reverse=True)
    for line in lines:
        scores = line["scores"]
        assert scores["divergence"] == pytest.approx(scores["zLoss"] - scores["zEntropy"], abs=1e-3)
        assert line["source"].endswith("records.jsonl") and scores["loss"] > 0 and scores["entropy"] > 0
    [again] = [line for line in lines if line["duplicateOf"]]
    assert again["record"]["answer"].endswith(" again") and again["duplicateOf"]["line"] == 32
    [foreign] = [line for line in lines if any("Cyrillic" in reason for reason in line["reasons"])]
    assert "messages" in foreign["record"]


def test_the_cleaned_records_are_the_others_in_their_order_and_can_be_trained_on(
    ytrain: Commands, whole: Path, model_folder: Path
) -> None:
    lines = read_lines(whole / "whole/output/scored.jsonl")
    kept = sorted((line["line"], line["record"]) for line in lines if not line["leftOut"])
    cleaned = read_lines(whole / "whole/output/cleaned.jsonl")
    assert cleaned == [record for _, record in kept] and 0 < len(cleaned) < 33
    result = json.loads((whole / "whole/result.json").read_text())
    assert result["corpus"]["kept"] == len(cleaned)
    assert sum(result["corpus"]["leftOut"].values()) == 33 - len(cleaned)
    assert result["data"]["skipped"] == 1 and len(read_lines(whole / "whole/skipped.jsonl")) == 1
    write_job(whole, model_folder, {"data.train": [{"source": "file://./whole/output/cleaned.jsonl"}]}, name="next")
    ytrain(whole, "check", "next.yaml").expect(0, f"{len(cleaned)} used", "nothing wrong found")


def test_run_again_it_does_nothing_and_two_ranks_find_the_same(ytrain: Commands, whole: Path) -> None:
    ytrain(whole, "run", "tiny.yaml", "--workdir", "whole").expect(0, "this job is done already")
    two = ytrain(whole, "run", "tiny.yaml", "--workdir", "two", "--processes", "2")
    assert "Traceback" not in two.expect(0, "33 records scored", "(100%)").output
    assert results(whole / "two/output") == results(whole / "whole/output")
    assert (whole / "two/corpus.html").read_bytes() == (whole / "whole/corpus.html").read_bytes()
    assert json.loads((whole / "two/result.json").read_text())["ranks"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_it_goes_on_with_what_is_missing(
    ytrain: Commands, model_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    write_chats(tmp_path / "chats.jsonl", 3000)
    write_job(tmp_path, model_folder, CORPUS)
    run = tmp_path / "run"
    running = ytrain.start(tmp_path, "run", "tiny.yaml", "--workdir", "run")
    running.until(lambda: len(list(run.glob("scores/*/*.npz"))) >= 3)
    ended = running.send(number).wait()
    if number == signal.SIGTERM:
        ended.expect(143, "SIGTERM while scoring", "Run the same command to go on")
    assert not (run / "output").exists()
    shards = {path: path.stat().st_mtime_ns for path in run.glob("scores/*/*.npz")}

    ytrain(tmp_path, "run", "tiny.yaml", "--workdir", "run").expect(0, "3,000 records scored")
    ytrain(tmp_path, "run", "tiny.yaml", "--workdir", "whole").expect(0)
    assert all(path.stat().st_mtime_ns == when for path, when in shards.items())
    assert 3 <= len(shards) < len(list(run.glob("scores/*/*.npz")))
    assert results(run / "output") == results(tmp_path / "whole/output")


def test_texts_that_are_split_are_records_as_they_were_read(
    ytrain: Commands, model_folder: Path, tmp_path: Path
) -> None:
    texts = [f"{word} " * 90 + f"end of {number}" for number, word in enumerate(("rain", "snow", "hail", "fog"))]
    with (tmp_path / "texts.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    changes = {"data.train": [{"source": "file://./texts.jsonl"}], "data.overlong": "split", "data.maxTokens": 96}
    write_job(tmp_path, model_folder, CORPUS | changes)
    ytrain(tmp_path, "run", "tiny.yaml", "--workdir", "run").expect(0, "4 records scored")
    lines = read_lines(tmp_path / "run/output/scored.jsonl")
    assert sorted(line["record"]["text"] for line in lines) == sorted(texts)
    assert all(line["scores"]["tokens"] > 300 for line in lines)


def test_the_target_is_filled_and_never_overwritten(
    ytrain: Commands, whole: Path, model_folder: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path)
    data = {"data.train": [{"source": "file://./records.jsonl"}], "data.maxBadFraction": 0.1}
    write_job(tmp_path, model_folder, CORPUS | data | {"output": {"target": "file://./out"}})
    ytrain(tmp_path, "run", "tiny.yaml", "--workdir", "run").expect(0, str(tmp_path / "out/cleaned.jsonl"))
    content = files_of(tmp_path / "out")
    assert content["scored.jsonl"].replace(str(tmp_path).encode(), b"") == files_of(whole / "whole/output")[
        "scored.jsonl"
    ].replace(str(whole).encode(), b"")
    ytrain(tmp_path, "run", "tiny.yaml", "--workdir", "other").expect(2, "spec.output.target", "file://./out")
    assert files_of(tmp_path / "out") == content


def test_other_settings_judge_the_same_scores_anew(ytrain: Commands, model_folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path)
    data = {"data.train": [{"source": "file://./records.jsonl"}], "data.maxBadFraction": 0.1}
    write_job(tmp_path, model_folder, CORPUS | data)
    ytrain(tmp_path, "run", "tiny.yaml").expect(0)
    output = tmp_path / "runs/tiny/output"
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/tiny/scores/*/*.npz")}
    before = read_lines(output / "scored.jsonl")
    write_job(tmp_path, model_folder, CORPUS | data | {"corpus": {"divergence": {"threshold": 0.01}}})
    ytrain(tmp_path, "run", "tiny.yaml").expect(0, "33 records scored")
    after = read_lines(output / "scored.jsonl")
    assert shards and shards == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/tiny/scores/*/*.npz")}
    normal = [sum(line["class"] == "normal" for line in lines) for lines in (before, after)]
    assert normal[1] < normal[0]
    scores = [{line["line"]: line["scores"] for line in lines} for lines in (before, after)]
    assert scores[0] == scores[1]
    write_job(tmp_path, model_folder, CORPUS | data | {"data.maxTokens": 150})
    ytrain(tmp_path, "run", "tiny.yaml").expect(2, "runs/tiny/output")
    assert read_lines(output / "scored.jsonl") == after


def test_a_record_without_a_finite_score_is_left_out_and_changes_no_other(
    ytrain: Commands, model_folder: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path)
    data = {"data.train": [{"source": "file://./records.jsonl"}], "data.maxBadFraction": 0.1}
    write_job(tmp_path, model_folder, CORPUS | data)
    ytrain(tmp_path, "run", "tiny.yaml").expect(0)
    run = tmp_path / "runs/tiny"
    shards = sorted(run.glob("scores/*/*.npz"))
    spoil(shards[0], slice(1))
    write_job(tmp_path, model_folder, CORPUS | data | {"corpus": {"clusters": {"minSize": 5}}})
    ytrain(tmp_path, "run", "tiny.yaml").expect(0, "33 records scored", "1 without a finite score")

    *others, last = strict_lines(run / "output/scored.jsonl")
    assert last["record"] == records()[0] and last["leftOut"] == "without a finite score"
    assert "NaN" in last["reasons"][0] and last["class"] is None and last["cluster"] == -1
    assert last["scores"].pop("tokens") > 0 and set(last["scores"].values()) == {None}
    assert all(line["scores"]["zLoss"] is not None and line["class"] for line in others)
    assert len({line["class"] for line in others}) > 1
    assert last["record"] not in read_lines(run / "output/cleaned.jsonl")
    found = json.loads((run / "result.json").read_text(), parse_constant=pytest.fail)["corpus"]
    assert sum(found["classes"].values()) == 32 and found["leftOut"]["without a finite score"] == 1
    shown = (run / "corpus.html").read_text().partition('<script type="application/json" id="data">')[2]
    assert len(json.loads(shown.partition("</script>")[0], parse_constant=pytest.fail)["samples"]) == 32

    for shard in shards:
        spoil(shard, slice(None))
    write_job(tmp_path, model_folder, CORPUS | data)
    ytrain(tmp_path, "run", "tiny.yaml").expect(4, "none of the 33 records a finite loss", "model.precision: float32")


def strict_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of JSON as the standard has it, which knows no NaN."""
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def spoil(shard: Path, tokens: slice) -> None:
    """Make stored losses of answer tokens NaN, as a model that overflows does."""
    scores = dict(np.load(shard))
    scores["loss"][tokens] = np.nan
    np.savez(shard, **scores)


def test_check_tells_what_a_corpus_job_will_do(
    ytrain_here: Callable[..., Ended], model_folder: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path)
    data = {"data.train": [{"source": "file://./records.jsonl"}], "data.maxBadFraction": 0.1}
    write_job(tmp_path, model_folder, CORPUS | data)
    ytrain_here(tmp_path, "check", "tiny.yaml").expect(
        0,
        "33 used",
        "what is scored is between",
        "scored once",
        "1 skipped records are not scored",
        "says little for fewer than 100",
    )
