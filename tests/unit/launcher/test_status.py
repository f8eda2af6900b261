"""How far training is, as the column PROGRESS shows it."""

import pytest

from ytrain.launcher.coordinator import Coordinator, Outcome, Rules
from ytrain.launcher.status import launcher_status
from ytrain_api.protocol import RankProgress

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("activity", "step", "total", "summary"),
    [
        ("training", 40, 100, "40% (40/100)"),
        ("loading", 0, None, "loading"),
        ("training", 0, None, "training"),
        ("evaluating before training", 0, 100, "0% (0/100), evaluating before training"),
        ("saving", 100, 100, "100% (100/100), saving"),
    ],
)
def test_progress_says_what_is_done(activity: str, step: int, total: int | None, summary: str) -> None:
    coordinator = Coordinator(
        Rules(job="tiny", workers=1, least=1, restarts=0, hang_seconds=None, join_seconds=None), now=0.0
    )
    coordinator.progress = RankProgress(activity=activity, step=step, total_steps=total)
    told = launcher_status(coordinator, "tiny").progress
    assert told is not None and told.summary == summary
    coordinator.outcome = Outcome(0, "done")
    ended = launcher_status(coordinator, "tiny").progress
    assert ended is not None and ended.summary == (f"{100 * step // total}% ({step}/{total})" if total else None)
