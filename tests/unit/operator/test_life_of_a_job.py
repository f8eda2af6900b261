"""A job from its creation to its end, and everything that comes between: plans carried out on a small cluster."""

import json

import pytest
from small_cluster import SmallCluster

from ytrain_operator.planner.queued import releases
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.unit

PODS = {"bot-launcher", "bot-worker-0", "bot-worker-1"}
DONE = json.dumps({"exitCode": 0, "message": "done"})
STOPPED = json.dumps({"exitCode": 143, "message": "stopped: worker 0 was asked to stop"})


def finish(cluster: SmallCluster, word: str = DONE, code: int = 0) -> None:
    """The launcher and its workers end, as they do within a moment."""
    cluster.end_pod("bot-launcher", code, message=word)
    for name in sorted(PODS - {"bot-launcher"}):
        if name in cluster.pods:
            cluster.end_pod(name, code)


def test_from_creation_to_the_model() -> None:
    cluster = SmallCluster()
    cluster.reconcile()
    assert set(cluster.pods) == PODS
    assert {kind for kind, _ in cluster.others} == {"ConfigMap", "Secret", "Service", "NetworkPolicy"}
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
    assert "epochs: 9" in cluster.others["ConfigMap", "bot-ytrain"]["data"]["job.yaml"]
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


class TestSuspend:
    def test_workers_save_first_then_the_launcher_goes(self) -> None:
        cluster = SmallCluster().trained()
        cluster.suspend()
        cluster.settle()
        assert all("deletionTimestamp" in cluster.pods[f"bot-worker-{i}"]["metadata"] for i in (0, 1))
        assert "deletionTimestamp" not in cluster.pods["bot-launcher"]["metadata"], "the workers agree by it"
        assert cluster.phase == "Saving"
        finish(cluster, STOPPED, 143)
        cluster.settle()
        assert not cluster.pods
        assert cluster.phase == "Suspended"
        assert cluster.condition("Suspended").status == "True"
        assert "step 10 was done" in cluster.condition("Ready").message
        assert cluster.condition("Ready").status == "True"

    def test_without_storage_nothing_is_left_to_go_on_from(self) -> None:
        cluster = SmallCluster({"workers": {"replicas": 1}})
        del cluster.job["spec"]["storage"]
        cluster.trained().suspend()
        cluster.settle()
        for name in ("bot-worker-0", "bot-launcher"):
            cluster.end_pod(name, 143)
            cluster.settle()
        assert cluster.phase == "Suspended"
        assert "no storage" in cluster.condition("Suspended").message
        assert "checkpoint (step" not in cluster.condition("Suspended").message

    def test_a_failure_while_it_stops_is_told_and_does_not_end_it(self) -> None:
        cluster = SmallCluster().trained()
        cluster.suspend()
        cluster.settle()
        cluster.tell("Preempted", step=10, failure={"class": "LostWorker", "message": "worker 1 is gone"})
        assert cluster.launcher_status is not None
        status = cluster.launcher_status.model_dump(mode="json", by_alias=True, exclude_none=True)
        for index in range(2):
            cluster.end_pod(f"bot-worker-{index}", 143)
        word = {"exitCode": 143, "message": "worker 1 is gone, while it was stopping", "status": status}
        cluster.end_pod("bot-launcher", 143, message=json.dumps(word))
        cluster.settle()
        assert cluster.phase == "Suspended"
        assert cluster.status["failure"]["class"] == "LostWorker"

    def test_resumed_with_another_number_of_workers(self) -> None:
        cluster = SmallCluster().trained()
        cluster.suspend()
        cluster.settle()
        finish(cluster, STOPPED, 143)
        cluster.settle()
        cluster.suspend(False, replicas=3)
        cluster.settle()
        assert set(cluster.pods) == PODS | {"bot-worker-2"}
        cluster.start_pods()
        cluster.tell(step=11)
        cluster.settle()
        assert cluster.phase == "Running"

    def test_resumed_while_it_still_saves(self) -> None:
        cluster = SmallCluster().trained()
        cluster.suspend()
        cluster.settle()
        cluster.suspend(False)
        cluster.settle()
        assert len(cluster.made) == 3, "the names are taken"
        finish(cluster, STOPPED, 143)
        cluster.settle()
        assert set(cluster.pods) == PODS
        assert len(cluster.made) == 6

    def test_resumed_at_another_size_before_anything_was_seen(self) -> None:
        cluster = SmallCluster().trained()
        cluster.suspend(False, replicas=1)
        cluster.settle()
        assert all("deletionTimestamp" in cluster.pods[f"bot-worker-{i}"]["metadata"] for i in (0, 1))
        finish(cluster, STOPPED, 143)
        cluster.settle()
        assert set(cluster.pods) == PODS - {"bot-worker-1"}

    def test_suspended_from_its_creation(self) -> None:
        cluster = SmallCluster({"suspend": True})
        cluster.settle()
        assert not cluster.pods
        assert not cluster.others
        assert cluster.phase == "Suspended"
        assert "base model" in cluster.condition("Suspended").message


class TestPodsThatEnd:
    def test_a_killed_worker_is_replaced_and_explained(self) -> None:
        cluster = SmallCluster().trained()
        cluster.end_pod("bot-worker-1", 137, reason="OOMKilled", message="step 10\nstep 11")
        cluster.settle()
        assert cluster.made.count("bot-worker-1") == 2
        assert cluster.status["failure"]["class"] == "HostOutOfMemory"
        assert cluster.status["failure"]["pod"] == "bot-worker-1"
        assert cluster.status["failure"]["lastLines"] == ["step 10", "step 11"]
        assert cluster.phase == "Pending"
        assert "Warning HostOutOfMemory" in cluster.events

    def test_a_launcher_that_is_killed_comes_back_while_the_ranks_go_on(self) -> None:
        cluster = SmallCluster().trained()
        cluster.end_pod("bot-launcher", 137, reason="OOMKilled")
        cluster.settle()
        assert cluster.made.count("bot-launcher") == 2
        assert cluster.made.count("bot-worker-0") == 1
        assert cluster.phase == "Running"

    def test_a_drained_worker_stops_the_job_which_starts_again_whole(self) -> None:
        cluster = SmallCluster().trained()
        cluster.delete_pod("bot-worker-0")
        cluster.settle()
        assert cluster.made.count("bot-launcher") == 1
        finish(cluster, STOPPED, 143)
        cluster.settle()
        assert set(cluster.pods) == PODS
        assert len(cluster.made) == 6
        assert "podFailures" not in cluster.status, "nobody failed"

    def test_another_launcher_waits_until_workers_that_stop_are_gone(self) -> None:
        cluster = SmallCluster().trained()
        cluster.delete_pod("bot-worker-0")
        del cluster.pods["bot-launcher"]
        cluster.settle()
        assert cluster.made.count("bot-launcher") == 1
        cluster.end_pod("bot-worker-0", 143)
        cluster.settle()
        assert cluster.made.count("bot-launcher") == 2

    def test_failures_in_a_row_without_a_step_use_up_the_budget(self) -> None:
        cluster = SmallCluster({"policy": {"restarts": 2}}).trained()
        for _ in range(3):
            assert cluster.phase != "Failed"
            cluster.pass_time(600)
            cluster.settle()
            cluster.start_pods()
            cluster.end_pod("bot-worker-0", 1, message="boom")
            cluster.settle()
        assert cluster.phase == "Failed"
        assert "policy.restarts: 2 is used up" in cluster.condition("Failed").message
        assert cluster.condition("Stalled").status == "True"

    def test_steps_between_failures_renew_the_budget(self) -> None:
        cluster = SmallCluster({"policy": {"restarts": 1}}).trained(step=1)
        for step in range(2, 6):
            cluster.pass_time(600)
            cluster.start_pods()
            cluster.tell(step=step)
            cluster.settle()
            cluster.end_pod("bot-worker-0", 1)
            cluster.settle()
        assert cluster.status["podFailures"]["count"] == 1

    def test_replacements_wait_longer_each_time(self) -> None:
        cluster = SmallCluster({"policy": {"restarts": 9}}).trained()
        waits = []
        for _ in range(4):
            cluster.pass_time(1000)
            cluster.start_pods()
            cluster.end_pod("bot-worker-0", 1)
            cluster.settle()
            waits.append(0.0 if "bot-worker-0" in cluster.pods else cluster.plan().again_after)
            cluster.pass_time(1000)
            cluster.settle()
        assert waits[0] == 0.0
        assert waits[1:] == [1.0, 2.0, 4.0]

    @pytest.mark.parametrize(("code", "kind"), [(2, "SpecError"), (3, "DataError"), (4, "TrainingError")])
    def test_what_would_fail_again_fails_at_once(self, code: int, kind: str) -> None:
        cluster = SmallCluster().trained()
        word = {"exitCode": code, "message": "rank 1: data.train[0]: line 3 is no JSON"}
        finish(cluster, json.dumps(word), code)
        cluster.settle()
        assert cluster.phase == "Failed"
        assert cluster.status["failure"]["class"] == kind
        assert cluster.condition("Failed").message.startswith("rank 1: data.train[0]: line 3 is no JSON")
        assert set(cluster.pods) == PODS, "they stay for their logs"

    def test_workers_that_leave_before_the_launcher_speaks_are_no_failures(self) -> None:
        cluster = SmallCluster().trained()
        cluster.tell("Failed", step=10, message="5 restarts in a row gained no step", exitCode=5)
        cluster.end_pod("bot-worker-0", 5)
        cluster.settle()
        assert "podFailures" not in cluster.status
        assert cluster.made.count("bot-worker-0") == 1

    def test_a_wrong_command_line_is_not_tried_again(self) -> None:
        cluster = SmallCluster()
        cluster.settle()
        cluster.start_pods()
        cluster.tell("Waiting")
        cluster.end_pod("bot-worker-0", 2, message="--claim models=/claims/models: is not a folder")
        cluster.settle()
        assert cluster.phase == "Failed"
        assert "is not a folder" in cluster.condition("Failed").message


class TestNodes:
    def lost(self) -> SmallCluster:
        """The taint manager evicts a worker from a node that is silent."""
        cluster = SmallCluster().trained()
        pod = cluster.pods["bot-worker-1"]
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
        pod["status"]["conditions"] = [
            {"type": "Ready", "status": "False"},
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            },
        ]
        return cluster

    def test_a_pod_on_a_silent_node_is_removed_and_made_elsewhere(self) -> None:
        cluster = self.lost()
        cluster.settle()
        assert cluster.made.count("bot-worker-1") == 1
        cluster.pass_time(31)
        cluster.settle()
        assert cluster.made.count("bot-worker-1") == 2
        assert "podFailures" not in cluster.status

    def test_a_node_that_answers_is_not_hurried(self) -> None:
        cluster = self.lost()
        cluster.pods["bot-worker-1"]["status"]["conditions"][0]["status"] = "True"
        cluster.pass_time(500)
        cluster.settle()
        assert cluster.made.count("bot-worker-1") == 1


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
