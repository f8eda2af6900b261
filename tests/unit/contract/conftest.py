"""A small valid job as data, and a way to change it by dotted path."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

MINIMAL: dict[str, Any] = {
    "apiVersion": "ytrain.io/v1alpha1",
    "kind": "YTrainJob",
    "metadata": {"name": "support-bot"},
    "spec": {
        "model": {"source": "hf://Qwen/Qwen3-0.6B@main"},
        "data": {"train": [{"source": "configmap://support-bot-data/train.jsonl"}]},
        "sft": {},
    },
}

JobData = Callable[..., dict[str, Any]]


@pytest.fixture
def job_data() -> JobData:
    """`job_data({"spec.workers.replicas": 2, "spec.sft": ...})`: the minimal job, fields set or (`...`) removed."""

    def build(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        data = copy.deepcopy(MINIMAL)
        for path, value in (changes or {}).items():
            *above, last = path.split(".")
            block = data
            for name in above:
                block = block.setdefault(name, {})
            if value is ...:
                del block[last]
            else:
                block[last] = value
        return data

    return build
