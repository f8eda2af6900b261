"""The record of a run that goes on: what lies in it is kept up to the step of the checkpoint, damage is not."""

import json
from pathlib import Path

import pytest

from ytrain.training.metrics import METRICS, MetricsLog

pytestmark = pytest.mark.unit
LINES = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 6)]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("\n".join(LINES) + "\n", 4),
        ("\n".join([*LINES[:4], LINES[4][:9]]), 4),
        ("\n".join([*LINES[:3], LINES[3][:9], LINES[4], ""]), 3),
        ("\n".join([*LINES[:2], "\0" * 40, ""]), 2),
        ("\n".join([*LINES[:2], "3", ""]), 2),
        (None, 0),
    ],
    ids=["whole", "cut off", "cut off inside", "zeros", "no step", "no file"],
)
def test_lines_up_to_a_step_or_the_first_damage_are_kept(tmp_path: Path, content: str | None, kept: int) -> None:
    if content is not None:
        (tmp_path / METRICS).write_text(content)
    log = MetricsLog(tmp_path, after=4)
    log.add({"step": kept + 1}, wall_time=0.0)
    log.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / METRICS).read_text().splitlines()]
    assert steps == list(range(1, kept + 2))
