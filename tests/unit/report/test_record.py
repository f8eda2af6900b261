"""Reading run folders in whatever state a run left them."""

import tracemalloc

import pytest
from tests.unit.report.conftest import metrics_line, rl_figures

from ytrain.report.record import RunState, read_run

pytestmark = pytest.mark.unit


def test_an_empty_folder_is_an_unfinished_run(run_folder) -> None:
    record = read_run(run_folder(job=None))
    assert record.state is RunState.UNFINISHED
    assert record.name == "support-bot-run"
    assert not record.metrics and record.evaluation is None and not record.problems


def test_a_missing_folder_says_how_to_make_one(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="ytrain run"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize("state", ["Succeeded", "Failed", "Preempted"])
def test_the_state_is_the_results(run_folder, state: str) -> None:
    assert read_run(run_folder(result={"state": state})).state is RunState(state)


def test_a_truncated_last_line_is_skipped_silently(run_folder) -> None:
    folder = run_folder(metrics=[{"step": 1}, {"step": 2}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    record = read_run(folder)
    assert [metrics.step for metrics in record.metrics] == [1, 2]
    assert not record.problems


def test_a_broken_line_in_the_middle_is_told_with_its_number(run_folder) -> None:
    folder = run_folder(metrics=[])
    (folder / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    record = read_run(folder)
    assert [metrics.step for metrics in record.metrics] == [1, 3]
    assert "line 2" in record.problems[0]


def test_steps_repeated_by_a_resume_count_once_and_the_later_line_wins(run_folder) -> None:
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 2.5}, {"step": 3, "loss": 3.0}]
    record = read_run(run_folder(metrics=lines))
    assert [metrics.loss for metrics in record.metrics] == [1.0, 2.5, 3.0]


@pytest.mark.parametrize(("name", "text"), [("evaluation.json", '{"before": {'), ("result.json", '{"state": "Odd"}')])
def test_an_unreadable_file_is_named_and_the_rest_is_read(run_folder, name: str, text: str) -> None:
    folder = run_folder(metrics=[{"step": 1}])
    (folder / name).write_text(text)
    record = read_run(folder)
    assert record.problems[0].startswith(name)
    assert len(record.metrics) == 1


def test_skipped_records_are_counted_by_reason_and_the_first_ten_kept(run_folder) -> None:
    skipped = [{"source": "a.jsonl", "line": n, "reason": "empty" if n % 3 else "too long"} for n in range(30)]
    record = read_run(run_folder(skipped=skipped))
    assert record.skipped.reasons == {"empty": 20, "too long": 10}
    assert record.skipped.total == 30
    assert [one.line for one in record.skipped.first] == list(range(10))


def test_of_the_job_file_only_the_job_is_kept(run_folder) -> None:
    record = read_run(run_folder())
    assert record.name == "support-bot"
    assert "do-not-show-this" not in str(record)


def test_a_step_takes_little_memory(run_folder) -> None:
    """A launcher pod of 512 MiB writes the report of a job that failed, however long it was."""
    steps = 4_000
    lines = [metrics_line(step, loss=step / 7, rl=rl_figures(step, entropy=step / 9)) for step in range(1, steps + 1)]
    folder = run_folder(metrics=lines)
    read_run(folder)
    tracemalloc.start()
    try:
        record = read_run(folder)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(record.metrics) == steps
    assert most / steps < 1_500
