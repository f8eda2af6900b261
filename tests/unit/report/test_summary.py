"""The closing words in the terminal."""

import io

import pytest
from rich.console import Console

from ytrain.report import print_summary

pytestmark = pytest.mark.unit


def printed(folder) -> str:
    stream = io.StringIO()
    print_summary(folder, Console(file=stream, width=200))
    return stream.getvalue()


def test_a_finished_run_tells_gain_retention_and_places(finished) -> None:
    text = printed(finished)
    for words in ("done, 20 steps", "62% (40/64)", "+62 points", "+4.0 %", "slightly worse", "/models/support-bot",
                  str(finished / "report.html"), "1 records were skipped"):  # fmt: skip
        assert words in text, words


def test_paths_are_not_broken_in_a_narrow_console(finished) -> None:
    stream = io.StringIO()
    print_summary(finished, Console(file=stream, width=30))
    assert str(finished / "report.html") in stream.getvalue()


def test_an_adapter_is_offered_a_merge(run_folder, tmp_path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    folder = run_folder(result={"state": "Succeeded", "output": {"path": str(tmp_path / "adapter")}})
    assert f"ytrain merge {tmp_path / 'adapter'}" in printed(folder)


@pytest.mark.parametrize("result", [None, {"state": "Failed", "failure": {"message": "[bold]out[/] of memory"}}])
def test_an_unsuccessful_run_tells_why_and_how_to_go_on(run_folder, result) -> None:
    text = printed(run_folder(result=result))
    assert "This run" in text and "same `ytrain run FILE`" in text
    assert result is None or "[bold]out[/] of memory" in text


def test_a_run_with_rewards_tells_them_without_an_evaluation(rewarded) -> None:
    text = printed(rewarded)
    (row,) = [line for line in text.splitlines() if line.startswith("reward, mean of the first and last 10 steps")]
    assert row.split()[-3:] == ["0.550", "1.550", "+1.000"]
    assert "Not measured" not in text


def test_an_evaluation_that_is_not_a_number_is_said_at_the_top(run_folder) -> None:
    points = [{"step": step, "validation": {"loss": loss, "tokens": 5}} for step, loss in ((0, 2.0), (7, float("nan")))]
    text = printed(run_folder(evaluation={"before": points[0], "after": points[1]}))
    assert "The evaluation after step 7 was not a number" in text and "rose" not in text
    assert text.index("was not a number") < text.index("loss: validation")
    (row,) = [line for line in text.splitlines() if line.startswith("loss: validation")]
    assert row.split()[2:] == ["2.000", "nan", "not", "a", "number"]
