"""Reward functions of a job, opened as a job opens them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ytrain.rl.rewards import RewardService, Sample, open_rewards
from ytrain.sources import Sources
from ytrain_api.rl import Reward


def sample(answer: str, record: dict[str, Any] | None = None, tokens: int = 1) -> Sample:
    """A sample with this answer."""
    return Sample(prompt="2 + 2 =", answer=answer, record=record or {}, answer_tokens=tokens)


@contextmanager
def opened(reward: dict[str, Any], folder: Path, processes: int = 1, code: str = "") -> Iterator[RewardService]:
    """The reward of a job whose ConfigMap `rewards` holds `reward.py`."""
    sources = Sources(
        claims={},
        config_maps={"rewards": {"reward.py": code.encode()}},
        base_dir=folder,
        scratch=folder / "scratch",
        cache=folder / "cache",
    )
    with open_rewards(Reward.model_validate(reward), sources, processes=processes) as service:
        yield service


@contextmanager
def opened_python(code: str, folder: Path, *, timeout: str = "10s", processes: int = 1) -> Iterator[RewardService]:
    """The function `score` of some code."""
    reward = {"python": {"source": "configmap://rewards/reward.py:score", "timeout": timeout}}
    with opened(reward, folder, processes, code) as service:
        yield service
