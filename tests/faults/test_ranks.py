"""Several ranks on one machine: equal to one rank, and equal again after whatever is done to them."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from run_folders import course, files_of, saved, steps_written
from tests.faults.conftest import Machines, alive, job, wait_until

pytestmark = pytest.mark.faults


def weights(run: Path) -> bytes:
    return (run / "output/model.safetensors").read_bytes()


def send(number: signal.Signals, ranks: list[int]) -> None:
    for rank in ranks:
        os.kill(rank, number)


def losses(run: Path) -> list[float]:
    return [step[2] for step in course(run)]


def assert_as_undisturbed(run: Path, undisturbed: Path, steps: int) -> None:
    """Other numbers of ranks sum in another order (float32); AdamW lets the difference grow from step to step."""
    assert [step[0] for step in course(run)] == list(range(1, steps + 1))
    assert losses(run)[:5] == pytest.approx(losses(undisturbed)[:5], rel=1e-5)
    assert losses(run)[:60] == pytest.approx(losses(undisturbed)[:60], rel=2e-3)


def test_two_ranks_train_as_one(machines: Machines, model_folder: Path, undisturbed: Path) -> None:
    machines.start("run", job(machines, model_folder), "--workdir", machines.run).expect(0)
    one, two = course(machines.run), course(undisturbed)
    assert [step[6:] for step in one] == [step[6:] for step in two]  # labels and tokens
    assert_as_undisturbed(machines.run, undisturbed, 200)
    assert json.loads((undisturbed / "result.json").read_text())["ranks"] == 2


def test_four_ranks_for_batches_of_fewer_rows(machines: Machines, model_folder: Path, undisturbed: Path) -> None:
    machines.here(job(machines, model_folder, optimization__maxSteps=60), 4).expect(0)
    assert_as_undisturbed(machines.run, undisturbed, 60)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_changes_nothing(machines: Machines, model_folder: Path, undisturbed: Path, victim: int) -> None:
    here = machines.here(job(machines, model_folder), 2)
    here.until(lambda: steps_written(machines.run) >= 45 and saved(machines.run))
    os.kill(here.ranks()[victim], signal.SIGKILL)
    here.expect(0, f"rank {victim} was ended by SIGKILL (out of memory?)", "going on from step-0000")
    assert course(machines.run) == course(undisturbed)
    assert weights(machines.run) == weights(undisturbed)


def test_killed_between_the_output_and_the_record_of_its_end(
    machines: Machines, model_folder: Path, undisturbed: Path
) -> None:
    """The output is there, result.json is not: it is not written twice. So short a moment no signal meets surely."""
    shutil.copytree(undisturbed, machines.run)
    for name in ("result.json", "report.html"):
        (machines.run / name).unlink()
    output = machines.run / "output/model.safetensors"
    written = output.stat()
    machines.here(job(machines, model_folder), 2).expect(0, "going on from step-000200", "done, 200 steps")
    assert (output.stat().st_ino, output.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert json.loads((machines.run / "result.json").read_text())["state"] == "Succeeded"
    assert course(machines.run) == course(undisturbed)
    assert weights(machines.run) == weights(undisturbed)


def test_a_stop_is_saved(machines: Machines, model_folder: Path, undisturbed: Path) -> None:
    file = job(machines, model_folder)
    here = machines.here(file, 2).until(lambda: steps_written(machines.run) >= 45)
    ranks = here.ranks()
    send(signal.SIGSTOP, ranks)  # else they are done before their agent, on a busy machine, has passed the word on
    here.send(signal.SIGTERM).until_it_says("SIGTERM: saving at the end of this step")
    send(signal.SIGCONT, ranks)
    here.expect(143, "SIGTERM: saving at the end of this step", "Run the same command to go on")
    done = steps_written(machines.run)
    assert json.loads((machines.run / "result.json").read_text())["state"] == "Preempted"
    machines.here(file, 2).expect(0, f"going on from step-{done:06d}", "done, 200 steps")
    assert course(machines.run) == course(undisturbed)
    assert weights(machines.run) == weights(undisturbed)


def test_a_run_goes_on_with_other_numbers_of_ranks(machines: Machines, model_folder: Path, undisturbed: Path) -> None:
    """Two ranks, then one, then two again."""
    machines.here(job(machines, model_folder, optimization__maxSteps=20), 2).expect(0, "done, 20 steps")
    longer = job(machines, model_folder, optimization__maxSteps=40)
    machines.start("run", longer, "--workdir", machines.run).expect(0, "going on from step-000020", "done, 40 steps")
    longest = job(machines, model_folder, optimization__maxSteps=60)
    machines.here(longest, 2).expect(0, "going on from step-000040", "done, 60 steps")
    assert_as_undisturbed(machines.run, undisturbed, 60)


def test_a_second_signal_ends_at_once_and_leaves_nothing(machines: Machines, model_folder: Path) -> None:
    here = machines.here(job(machines, model_folder, optimization__epochs=1000), 2)
    here.until(lambda: steps_written(machines.run) >= 3)
    below = here.descendants()
    send(signal.SIGSTOP, here.ranks())  # they cannot save
    here.send(signal.SIGTERM).until_it_says("once more ends at once").send(signal.SIGTERM).expect(143)
    wait_until(lambda: not any(alive(pid) for pid in below), lambda: f"{below} are left")


def test_a_killed_agent_takes_its_ranks_along(machines: Machines, model_folder: Path) -> None:
    here = machines.here(job(machines, model_folder, optimization__epochs=1000), 2)
    here.until(lambda: steps_written(machines.run) >= 3)
    below = here.descendants()
    here.send(signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in below), lambda: f"{below} are left")


def test_a_hanging_rank_is_found_and_named(machines: Machines, model_folder: Path, undisturbed: Path) -> None:
    file = job(machines, model_folder, policy__hangTimeout="5s")
    here = machines.here(file, 2).until(lambda: steps_written(machines.run) >= 45)
    os.kill(here.ranks()[1], signal.SIGSTOP)
    here.expect(0, "no step for 5 s after step", "rank 1 did not answer; the others stood in File", "in all_reduce")
    assert weights(machines.run) == weights(undisturbed)


def test_a_wrong_record_is_not_tried_again(machines: Machines, model_folder: Path) -> None:
    file = job(machines, model_folder)
    (machines.folder / "chats.jsonl").write_text('{"prompt": "a", "response": "b"}\nnot json\n')
    output = machines.here(file, 2).expect(3, "chats.jsonl:2")
    assert "generation 2" not in output
    assert json.loads((machines.run / "result.json").read_text())["failure"]["exitCode"] == 3


def test_failures_without_progress_spend_the_budget(machines: Machines, model_folder: Path) -> None:
    endless_step = {
        "data__train": [{"source": "file://./chats.jsonl", "repeat": 1000}],
        "optimization__batchSequences": 20_000,
        "optimization__epochs": 1,
    }
    here = machines.here(job(machines, model_folder, policy__restarts=1, **endless_step), 2)
    for generation in (1, 2):
        here.until_it_says(f"generation {generation}: running").until(lambda: len(here.ranks()) == 2)
        os.kill(here.ranks()[0], signal.SIGKILL)
    here.expect(5, "1 restarts in a row gained no step")
    assert json.loads((machines.run / "result.json").read_text())["failure"]["exitCode"] == 5
    file = job(machines, model_folder, optimization__epochs=1)
    machines.here(file, 2).expect(0, "done, 5 steps")  # whoever failed first, the folder may be used again


def test_a_finished_job_is_not_trained_again(machines: Machines, model_folder: Path) -> None:
    file = job(machines, model_folder, optimization__epochs=1)
    machines.here(file, 2).expect(0, "done, 5 steps")
    before = files_of(machines.run / "output")
    machines.here(file, 2).expect(0, "this job is done already")
    assert files_of(machines.run / "output") == before
