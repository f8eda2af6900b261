"""A job from its creation to its end, and everything that comes between: plans carried out on a small cluster."""

import json

import pytest
from small_cluster import PODS, STOPPED, SmallCluster, finish, job_file

from ytrain_operator.planner.queued import releases
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.unit


def test_from_creation_to_the_model() -> None:
    cluster = SmallCluster()
    cluster.reconcile()
    assert set(cluster.pods) == PODS
    assert {kind for kind, _ in cluster.others} == {"Secret", "Service", "NetworkPolicy"}
    assert cluster.phase == "Pending"
    assert cluster.condition("Ready").status == "False"
    cluster.start_pods()
    cluster.tell("Waiting")
    cluster.settle()
    assert cluster.phase == "Starting"
    assert cluster.condition("Ready").status == "True", "placed: a GitOps wait ends here, however long the run"
    cluster.tell(step=3)
    cluster.settle()
    assert cluster.phase == "Running"
    assert cluster.status["progress"]["step"] == 3
    finish(cluster)
    cluster.settle()
    assert cluster.phase == "Succeeded"
    assert cluster.condition("Complete").status == "True"
    assert not cluster.pods, "policy.keepPods: failed"
    assert cluster.events == ["Normal Pending", "Normal Starting", "Normal Running", "Normal Succeeded"]


@pytest.mark.parametrize("code", [0, 5])
def test_workers_that_leave_at_the_end_are_not_missing(code: int) -> None:
    cluster = SmallCluster().trained()
    cluster.tell(step=10, exitCode=code)
    cluster.end_pod("bot-worker-0", code)
    cluster.settle()
    assert cluster.phase == "Running"
    assert cluster.condition("Ready").status == "True"
    assert len(cluster.made) == 3
    finish(cluster, json.dumps({"exitCode": code, "message": "so"}), code)
    cluster.settle()
    assert cluster.phase == ("Failed" if code else "Succeeded")


def test_why_it_failed_is_the_launchers_to_say() -> None:
    cluster = SmallCluster().trained()
    cluster.launcher_status = None
    cluster.end_pod("bot-worker-1", 2, message="the job is over")
    cluster.settle()
    assert cluster.phase == "Running"
    assert len(cluster.made) == 3
    finish(cluster, json.dumps({"exitCode": 2, "message": "rank 0: model.source is no folder"}), 2)
    cluster.settle()
    assert cluster.phase == "Failed"
    assert cluster.status["failure"]["message"] == "rank 0: model.source is no folder"
    assert "podFailures" not in cluster.status


@pytest.mark.parametrize("answers", [True, False])
def test_a_worker_that_ended_by_itself_is_believed(answers: bool) -> None:
    cluster = SmallCluster().trained()
    if not answers:
        cluster.launcher_status = None
    cluster.end_pod("bot-worker-1", 2, message="the launcher refuses the token")
    cluster.pass_time(0 if answers else 61)
    cluster.settle()
    assert cluster.phase == "Failed"
    assert "refuses the token" in cluster.status["failure"]["message"]


def test_a_finished_job_never_starts_again() -> None:
    cluster = SmallCluster({"policy": {"keepPods": "all"}}).trained()
    finish(cluster)
    cluster.settle()
    cluster.pods.clear()
    cluster.pass_time(1e6)
    cluster.suspend(True)
    cluster.settle()
    cluster.suspend(False)
    cluster.settle()
    assert not cluster.pods
    assert len(cluster.made) == 3
    assert cluster.phase == "Succeeded"


def test_an_upgrade_changes_the_image_of_a_live_job_only_when_it_starts_again_whole() -> None:
    old, new = ({"jobs": {"image": f"trainer:{version}"}} for version in (1, 2))
    cluster = SmallCluster(settings=Settings.model_validate(old)).trained()
    cluster.settings = Settings.model_validate(new)

    def images() -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in cluster.pods.values()}

    cluster.end_pod("bot-worker-1", 137)
    cluster.settle()
    assert len(cluster.pods) == 3
    assert images() == {"trainer:1"}
    cluster.start_pods()
    cluster.end_pod("bot-launcher", 143, message='{"exitCode": 143, "message": "stopped"}')
    for index in range(2):
        cluster.end_pod(f"bot-worker-{index}", 143)
    cluster.settle()
    assert len(cluster.pods) == 3
    assert images() == {"trainer:2"}


def test_more_epochs_reach_ranks_that_run_already() -> None:
    """They save and start again; otherwise the job would end where it was once meant to, and be Complete."""
    cluster = SmallCluster().trained()
    cluster.job["spec"]["optimization"] = {"epochs": 9}
    cluster.job["metadata"]["generation"] += 1
    cluster.settle()
    assert {name for name, pod in cluster.pods.items() if "deletionTimestamp" in pod["metadata"]} == {
        "bot-worker-0",
        "bot-worker-1",
    }
    for index in range(2):
        cluster.end_pod(f"bot-worker-{index}", 143)
    cluster.end_pod("bot-launcher", 143, message='{"exitCode": 143, "message": "stopped"}')
    cluster.settle()
    assert len(cluster.pods) == 3
    assert "epochs: 9" in job_file(cluster.others["Secret", "bot-ytrain"])
    made = len(cluster.made)
    cluster.start_pods()
    cluster.settle()
    assert len(cluster.made) == made, "once"


def test_the_last_word_of_a_newer_trainer_is_understood() -> None:
    cluster = SmallCluster().trained()
    cluster.end_pod("bot-launcher", 143, message='{"exitCode": 143, "message": "stopped", "novelty": 1}')
    word = cluster.observed().last_word
    assert word is not None
    assert word.exit_code == 143


def test_an_edit_of_a_finished_job_is_seen() -> None:
    cluster = SmallCluster().trained()
    cluster.end_pod("bot-launcher", 0, message='{"exitCode": 0, "message": "done"}')
    cluster.settle()
    ended = cluster.status
    cluster.job["metadata"]["generation"] += 1
    cluster.settle()
    assert cluster.status["observedGeneration"] == 2
    assert {each["observedGeneration"] for each in cluster.status["conditions"]} == {2}
    assert cluster.status["completionTime"] == ended["completionTime"]


def test_done_is_known_from_a_worker_when_the_launcher_is_gone() -> None:
    cluster = SmallCluster().trained()
    cluster.end_pod("bot-worker-0", 0)
    del cluster.pods["bot-launcher"]
    cluster.settle()
    assert cluster.phase == "Succeeded"


@pytest.mark.parametrize("writes", range(9))
def test_an_operator_that_is_killed_after_any_write_does_no_harm(writes: int) -> None:
    cluster = SmallCluster()
    cluster.reconcile(until=writes)
    cluster.trained()
    cluster.end_pod("bot-worker-1", 137, reason="OOMKilled")
    cluster.reconcile(until=writes)
    cluster.settle()
    cluster.start_pods()
    cluster.settle()
    finish(cluster)
    cluster.reconcile(until=writes)
    cluster.settle()
    assert cluster.phase == "Succeeded"
    assert sorted(cluster.made) == ["bot-launcher", "bot-worker-0", "bot-worker-1", "bot-worker-1"]
    assert cluster.status["podFailures"]["count"] == 1


class TestTime:
    def test_active_deadline_does_not_count_suspension(self) -> None:
        cluster = SmallCluster({"policy": {"activeDeadline": "1h"}}).trained()
        cluster.pass_time(1800)
        cluster.suspend()
        cluster.settle()
        finish(cluster, STOPPED, 143)
        cluster.settle()
        cluster.pass_time(100_000)
        cluster.suspend(False)
        cluster.trained(step=20)
        assert cluster.phase == "Running"
        cluster.pass_time(1801)
        cluster.settle()
        assert cluster.phase == "Failed"
        assert cluster.status["failure"]["class"] == "DeadlineExceeded"
        assert all("deletionTimestamp" in pod["metadata"] for pod in cluster.pods.values()), "devices are freed"

    def test_pending_deadline_tells_what_was_waited_for(self) -> None:
        cluster = SmallCluster({"policy": {"pendingDeadline": "30m"}})
        cluster.settle()
        why = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes are available.",
        }
        cluster.pods["bot-worker-1"]["status"]["conditions"] = [why]
        cluster.settle()
        assert cluster.condition("Ready").reason == "Unschedulable"
        cluster.pass_time(1800)
        cluster.settle()
        assert cluster.phase == "Failed"
        assert "0/2 nodes are available" in cluster.condition("Failed").message

    @pytest.mark.parametrize("deletes", ["pods", "job"])
    def test_time_to_live(self, deletes: str) -> None:
        policy = {"keepPods": "all", "ttlAfterFinished": "1h", "ttlDeletes": deletes}
        cluster = SmallCluster({"policy": policy}).trained()
        finish(cluster)
        cluster.settle()
        assert set(cluster.pods) == PODS
        assert cluster.plan().again_after == 3600
        cluster.pass_time(3600)
        cluster.settle()
        assert cluster.job_deleted == (deletes == "job")
        assert bool(cluster.pods) == (deletes == "job"), "those of a deleted job go with it"


def test_kueue_lets_go_of_pods_that_nothing_else_keeps() -> None:
    cluster = SmallCluster({"queue": "gpus"}).trained()
    for pod in cluster.pods.values():
        pod["metadata"]["finalizers"] = ["somebody/else", "kueue.x-k8s.io/managed"]

    def told(*, ended: bool) -> dict[str, list[str]]:
        found = releases(cluster.observed().pods, ended=ended)
        return {each.name: [f"{step['op']} {step['path']}" for step in each.patch] for each in found}

    assert told(ended=False) == {}
    cluster.delete_pod("bot-worker-0")
    cluster.pods["bot-worker-0"]["metadata"]["deletionGracePeriodSeconds"] = 600
    assert told(ended=False) == {}, "it saves"
    cluster.pods["bot-worker-0"]["metadata"]["deletionGracePeriodSeconds"] = 0
    removed = ["test /metadata/uid", "test /metadata/finalizers/1", "remove /metadata/finalizers/1"]
    assert told(ended=False) == {"bot-worker-0": removed}
    cluster.end_pod("bot-worker-1", 1)
    marked = ["test /metadata/uid", "add /metadata/annotations/kueue.x-k8s.io~1retriable-in-group"]
    assert told(ended=True) == {"bot-worker-0": removed, "bot-worker-1": marked}


def test_pods_of_a_former_job_of_this_name_are_waited_for() -> None:
    cluster = SmallCluster()
    cluster.settle()
    cluster.job["metadata"]["uid"] = "99999999-0000"
    del cluster.job["status"]
    cluster.settle()
    assert len(cluster.made) == 3
    cluster.pods.clear()
    cluster.settle()
    assert len(cluster.made) == 6


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    cluster = SmallCluster().trained()
    cluster.job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.pods.clear()
    cluster.settle()
    assert not cluster.pods


def test_where_the_time_went() -> None:
    cluster = SmallCluster()
    cluster.settle()
    cluster.pass_time(10)
    cluster.start_pods()
    cluster.tell("Waiting")
    cluster.settle()
    cluster.pass_time(20)
    cluster.tell(step=1)
    cluster.settle()
    cluster.pass_time(300)
    finish(cluster)
    cluster.settle()
    assert cluster.status["timing"] == {"pending": 10, "starting": 20, "training": 300, "saving": 0}


def test_nothing_is_written_while_nothing_happens() -> None:
    cluster = SmallCluster().trained()
    cluster.pass_time(3600)
    plan = cluster.plan()
    assert plan.status == cluster.observed().status
    assert not plan.events
    assert not plan.delete
