"""Pods that end before the job is done, and nodes that go silent: what is replaced, counted and given up."""

import json

import pytest
from small_cluster import PODS, STOPPED, SmallCluster, finish

pytestmark = pytest.mark.unit


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

    def test_enough_workers_go_on_while_another_is_replaced(self) -> None:
        cluster = SmallCluster({"workers": {"minReplicas": 1}}).trained()
        cluster.end_pod("bot-worker-1", 137, reason="OOMKilled")
        cluster.tell("Waiting", step=10)
        cluster.settle()
        assert cluster.made.count("bot-worker-1") == 2
        assert (cluster.phase, cluster.condition("Ready").status) == ("Starting", "False"), (
            "the ranks still wait for it"
        )
        cluster.tell(step=11)
        cluster.settle()
        ready = cluster.condition("Ready")
        assert (cluster.phase, ready.status, ready.reason) == ("Running", "True", "FewerWorkers")
        assert "1 of 2 workers run" in ready.message and "bot-worker-1 is being started" in ready.message
        cluster.start_pods()
        cluster.settle()
        assert cluster.condition("Ready").reason == "PodsRunning"
        cluster.end_pod("bot-worker-0", 137, reason="OOMKilled")
        cluster.end_pod("bot-worker-1", 137, reason="OOMKilled")
        cluster.settle()
        assert cluster.phase == "Pending", "none is not enough"

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
