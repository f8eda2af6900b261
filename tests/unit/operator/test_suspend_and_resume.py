"""Suspension and resumption, also at another size, and what happens in between."""

import json

import pytest
from small_cluster import PODS, STOPPED, SmallCluster, finish

pytestmark = pytest.mark.unit


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
