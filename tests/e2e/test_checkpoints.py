"""Checkpoints under bad luck: damaged ones are passed over, and a full disk costs the newest one only."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Commands, Ended
from disks import fill, needs_mount, small_disk
from run_folders import checkpoints, course, saved, steps_written, write_job

pytestmark = pytest.mark.e2e

EVERY_STEP = {
    "optimization": {"learningRate": 1e-3, "epochs": 40, "batchSequences": 4},
    "checkpoint": {"everySteps": 1, "keep": 3},
}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("tensors-00001.safetensors", flip_a_byte, "the digest of tensors-00001.safetensors differs"),
        ("tensors-00001.safetensors", cut_short, "tensors-00001.safetensors has "),
        ("state.json", Path.unlink, "No such file"),
        ("manifest.json", cut_short, "is damaged"),
        ("manifest.json", Path.unlink, "No such file"),
    ],
)
def test_damaged_newest_checkpoint_is_reported_and_passed_over(
    ytrain: Commands, place: Path, model_folder: Path, name: str, damage: Callable[[Path], None], problem: str
) -> None:
    write_job(place, model_folder, EVERY_STEP)
    run = place / "runs/tiny"
    running = ytrain.start(place, "run", "tiny.yaml").until(lambda: steps_written(run) >= 4)
    running.send(signal.SIGTERM).wait().expect(143)
    before = course(run)
    older, newest = checkpoints(run)[-2:]
    damage(run / "checkpoints" / newest / name)

    resumed = ytrain.start(place, "run", "tiny.yaml").until(lambda: steps_written(run) > len(before))
    resumed.send(signal.SIGTERM).wait().expect(143, newest, "is damaged", problem, f"going on from {older}")

    assert course(run)[: len(before)] == before


def test_checkpoint_after_a_damaged_one_stays_where_one_is_kept(
    ytrain: Commands, place: Path, model_folder: Path
) -> None:
    write_job(place, model_folder, EVERY_STEP | {"checkpoint": {"everySteps": 1, "keep": 1}})
    run = place / "runs/tiny"
    stop_after(100, ytrain, place)
    (damaged,) = checkpoints(run)
    flip_a_byte(run / "checkpoints" / damaged / "tensors-00001.safetensors")

    assert "going on" not in stop_after(2, ytrain, place).expect(143, damaged, "is damaged").output
    (kept,) = checkpoints(run)
    assert kept < damaged
    stop_after(1, ytrain, place).expect(143, f"going on from {kept}")


def stop_after(steps: int, ytrain: Commands, place: Path) -> Ended:
    """Run the job, stop it once so many steps are recorded."""
    (place / "runs/tiny/metrics.jsonl").unlink(missing_ok=True)
    running = ytrain.start(place, "run", "tiny.yaml").until(lambda: steps_written(place / "runs/tiny") >= steps)
    return running.send(signal.SIGTERM).wait()


@needs_mount
def test_disk_full_while_saving_keeps_the_checkpoint_before(ytrain: Commands, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder, EVERY_STEP | {"optimization.epochs": 2})
    run = place / "run"
    with small_disk(run, 900) as resize:  # a checkpoint has about 330 KiB
        full = ytrain(place, "run", "tiny.yaml", "--workdir", "run")
        full.expect(4, "the disk is full", "step-000003", "last complete checkpoint: step-000002", "Free space")
        assert checkpoints(run) == ["step-000001", "step-000002"]
        before = course(run)

        resize(8000)
        resumed = ytrain(place, "run", "tiny.yaml", "--workdir", "run").expect(0, "going on from step-000002")
        assert "damaged" not in resumed.output
        assert course(run)[: len(before)] == before
        assert len(course(run)) == 10


@needs_mount
def test_disk_full_while_writing_the_output_leaves_none(ytrain: Commands, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder, {"output": {"target": "file://./disk/output"}})
    with small_disk(place / "disk", 60) as resize:  # the model has about 110 KiB
        ytrain(place, "run", "tiny.yaml").expect(4, "the disk is full", "disk/output", "Free space")
        assert list((place / "disk").iterdir()) == []

        resize(8000)
        ytrain(place, "run", "tiny.yaml").expect(0, "going on from step-000010")
        assert (place / "disk/output/model.safetensors").is_file()


@needs_mount
def test_disk_full_between_checkpoints_is_said_and_the_run_goes_on_later(
    ytrain: Commands, place: Path, model_folder: Path
) -> None:
    write_job(place, model_folder, EVERY_STEP | {"checkpoint": {"everySteps": 50}, "optimization.epochs": 200})
    run = place / "run"
    with small_disk(run, 4000) as resize:
        running = ytrain.start(place, "run", "tiny.yaml", "--workdir", "run")
        running.until(lambda: steps_written(run) >= 60 and saved(run))
        fill(run / "filler")
        running.wait().expect(4, "the disk is full", "Free space")
        before = course(run)

        (run / "filler").unlink()
        resize(8000)
        resumed = ytrain.start(place, "run", "tiny.yaml", "--workdir", "run")
        resumed.until(lambda: steps_written(run) > len(before)).send(signal.SIGTERM).wait()
        assert "going on from step-0000" in resumed.output
        assert course(run)[:50] == before[:50]


@needs_mount
def test_disk_full_from_the_beginning_is_said(ytrain: Commands, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder)
    with small_disk(place / "disk", 64) as resize:
        fill(place / "disk/filler")
        full = ytrain(place, "run", "tiny.yaml", "--workdir", "disk/run")
        full.expect(4, "the disk is full: disk/run cannot hold more")
        full = ytrain(place, "run", "tiny.yaml", "--cache", "disk/cache")
        full.expect(4, "the disk is full: disk/cache cannot hold the tokenised data", "--cache")

        resize(8000)
        ytrain(place, "run", "tiny.yaml", "--workdir", "disk/run", "--cache", "disk/cache").expect(0)


@needs_mount
def test_disk_that_may_only_be_read_is_told_before_training(ytrain: Commands, place: Path, model_folder: Path) -> None:
    write_job(place, model_folder, {"output": {"target": "file://./disk/output"}})
    with small_disk(place / "disk", 64):
        subprocess.run(["mount", "-o", "remount,ro", place / "disk"], check=True)
        for command in ("run", "check"):
            ended = ytrain(place, command, "tiny.yaml")
            ended.expect(2 if command == "run" else 1, "spec.output.target", "cannot be written by user")
            assert "training ..." not in ended.output
        for ranks in ("1", "2"):
            ended = ytrain(place, "run", "tiny.yaml", "--workdir", "disk/run", "--processes", ranks)
            ended.expect(2, "--workdir", "disk cannot be written")
        ytrain(place, "run", "tiny.yaml", "--cache", "disk/cache").expect(2, "disk cannot be written")
