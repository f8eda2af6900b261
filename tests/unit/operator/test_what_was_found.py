"""What a run has found and cost, from the launcher into the status: copied, kept, and no reason to write by itself."""

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from small_cluster import SmallCluster, job_object

from ytrain_api.status import Status
from ytrain_operator.cache import Cache, Key
from ytrain_operator.monitoring import JobMetrics
from ytrain_operator.status.outcome import outcome
from ytrain_operator.work_queue import WorkQueue

pytestmark = pytest.mark.unit

DATA = {"read": 20, "used": 19, "skipped": 1, "truncated": 0, "supervisedTokens": 700}
CHECKPOINT = {"step": 10, "path": "/work/bot/checkpoints/step-000010", "complete": True}
EVALUATION = {"step": 0, "tasks": [{"name": "sums", "before": 0.0}]}
MEASURED = {
    "step": 100,
    "tasks": [{"name": "sums", "before": 0.0, "after": 0.69}],
    "retention": [{"name": "chats", "before": 2.0, "after": 2.072}],
}
OUTPUT = {"path": "pvc://models/out", "digest": "abc"}


def spent(productive: int, **more: int) -> dict[str, Any]:
    return {"deviceSeconds": {"productive": productive, "starting": 5, **more}}


def last_word(exit_code: int = 0, **status: Any) -> str:
    told = {"job": "bot", "state": "Succeeded", "generation": 1, "restarts": 0, "workers": {}, "exitCode": exit_code}
    return json.dumps({"exitCode": exit_code, "message": "so", "status": told | status})


def end(cluster: SmallCluster, word: str, code: int = 0) -> None:
    cluster.end_pod("bot-launcher", code, message=word)
    for index in (0, 1):
        cluster.end_pod(f"bot-worker-{index}", code)
    cluster.settle()


def test_what_is_not_told_stays() -> None:
    cluster = SmallCluster().trained()
    cluster.tell(step=10, data=DATA, evaluation=EVALUATION)
    cluster.settle()
    cluster.tell(step=11, checkpoint=CHECKPOINT)
    cluster.settle()
    cluster.launcher_status = None
    cluster.settle()
    assert cluster.status["data"] == DATA
    assert cluster.status["checkpoint"] == CHECKPOINT
    assert cluster.status["evaluation"] == EVALUATION | {"retention": []}


def test_a_job_that_is_done_says_what_came_of_it() -> None:
    cluster = SmallCluster().trained()
    cluster.tell(step=10, data=DATA, evaluation=EVALUATION)
    cluster.settle()
    end(cluster, last_word(evaluation=MEASURED, output=OUTPUT, usage=spent(70)))
    assert cluster.phase == "Succeeded"
    said = "done: sums 0 % -> 69 %; loss of chats +3.6 %; output in pvc://models/out"
    assert cluster.condition("Ready").message == cluster.condition("Complete").message == said
    assert cluster.status["output"] == OUTPUT
    assert cluster.status["data"] == DATA
    assert cluster.status["usage"]["deviceSeconds"] == {"productive": 70, "starting": 5, "lost": 0, "pending": 0}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "done: the model is written"),
        ({"evaluation": EVALUATION, "output": OUTPUT}, "done: output in pvc://models/out"),
        (
            {
                "evaluation": {
                    "validation": {"before": 2.345, "after": 1.2},
                    "retention": [{"name": "x", "before": 0.0}],
                }
            },
            "done: validation loss 2.35 -> 1.2",
        ),
        (
            {"evaluation": {"retention": [{"name": f"r{i}", "before": 2.0, "after": 1.0} for i in range(6)]}},
            "done: loss of r0 -50.0 %, r1 -50.0 %, r2 -50.0 %, r3 -50.0 %, 2 more",
        ),
    ],
)
def test_the_sentence(status: dict[str, Any], said: str) -> None:
    assert outcome(Status.model_validate(status)) == said


class TestDeviceTime:
    def test_it_is_written_with_something_else(self) -> None:
        cluster = SmallCluster().trained()
        cluster.tell(step=11, usage=spent(70))
        cluster.settle()
        assert cluster.status["usage"]["deviceSeconds"]["productive"] == 70
        before = json.dumps(cluster.job)
        cluster.tell(step=11, usage=spent(90))
        cluster.settle()
        assert json.dumps(cluster.job) == before
        cluster.tell(step=12, usage=spent(91))
        cluster.settle()
        assert cluster.status["usage"]["deviceSeconds"]["productive"] == 91

    def test_a_last_word_is_written_whatever_else_it_says(self) -> None:
        cluster = SmallCluster().trained()
        cluster.tell(step=11, usage=spent(70))
        cluster.settle()
        cluster.end_pod("bot-launcher", 143, message=last_word(143, usage=spent(75)))
        cluster.reconcile()
        assert cluster.status["usage"]["deviceSeconds"]["productive"] == 75

    def test_it_never_falls(self) -> None:
        cluster = SmallCluster().trained()
        for step, told, kept in ((11, spent(70), 70), (12, spent(3), 70), (13, spent(60, lost=20), 60)):
            cluster.tell(step=step, usage=told)
            cluster.settle()
            assert cluster.status["usage"]["deviceSeconds"]["productive"] == kept

    def test_the_next_launcher_is_told(self) -> None:
        cluster = SmallCluster().trained()
        args = cluster.pods["bot-launcher"]["spec"]["containers"][0]["args"]
        assert "--spent" not in args
        cluster.tell(step=11, usage=spent(70, lost=2))
        cluster.settle()
        del cluster.pods["bot-launcher"]
        cluster.settle()
        args = cluster.pods["bot-launcher"]["spec"]["containers"][0]["args"]
        told = json.loads(args[args.index("--spent") + 1])
        assert told == {"productive": 70, "starting": 5, "lost": 2, "pending": 0}

    def test_it_is_a_gauge_while_the_job_lives(self) -> None:
        cache, registry = Cache(), CollectorRegistry()
        registry.register(JobMetrics(cache, WorkQueue[Key]()))
        job = job_object()
        for version, (phase, shown) in enumerate((("Running", True), ("Succeeded", False)), start=1):
            job["metadata"]["resourceVersion"] = str(version)
            cache.put_job(job | {"status": {"phase": phase, "usage": spent(70, lost=2)}})
            line = 'ytrain_job_device_seconds{job="bot",kind="lost",namespace="team"} 2.0'
            assert (line in generate_latest(registry).decode()) == shown


def test_a_job_that_waits_for_pods_has_no_speed() -> None:
    """Nor is it one that stands, of which the chart's alert would tell."""
    cache, registry = Cache(), CollectorRegistry()
    registry.register(JobMetrics(cache, WorkQueue[Key]()))
    job = job_object()
    for version, (phase, shown) in enumerate((("Running", True), ("Pending", False), ("Starting", True)), start=1):
        job["metadata"]["resourceVersion"] = str(version)
        cache.put_job(job | {"status": {"phase": phase, "progress": {"step": 7, "tokensPerSecond": 90}}})
        told = generate_latest(registry).decode()
        for line in ("ytrain_job_tokens_per_second{", "ytrain_job_step{"):
            assert (line in told) == shown
