"""What happens to jobs on real nodes: pods killed and deleted, a node unplugged, memory used up, the operator gone."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs.job_on_cluster import LIMIT, LONG, LONG_STEPS, ROLES, Job, assert_none_was_made_anew
from tests.cluster import operations, state
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.faults]

KILL_RANKS = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").iterdir():
    if folder.name.isdigit():
        parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[1:3]
        if group == folder.name and parent not in ("0", "1"):  # ranks have a group of their own
            os.kill(int(folder.name), signal.SIGKILL)
"""
SILENT_SECONDS = 60.0
"""Four times as long as the operator's Lease lasts."""


def succeeded(job: Job) -> None:
    job.wait_for_phase("Succeeded")
    assert job.status["progress"]["step"] == LONG_STEPS


@pytest.mark.parametrize("role", ["worker-1", "launcher"])
def test_a_pod_is_deleted(job: Job, role: str) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    before = job.uid(role)
    job.kubectl("delete", "pod", f"{job.name}-{role}", "--wait=false")
    job.wait_for("another pod in its place", lambda: job.uid(role) not in ("", before))
    succeeded(job)


def test_a_rank_is_killed(job: Job) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    pods = [job.uid(role) for role in ROLES]
    job.kubectl("exec", f"{job.name}-worker-1", "--", "python", "-c", KILL_RANKS)
    job.wait_for("ranks started again", lambda: job.status.get("restarts") == 1)
    assert "SIGKILL" in job.status["failure"]["message"]
    succeeded(job)
    assert_none_was_made_anew(job, pods)


def test_both_operators_are_killed(job: Job, operator: Kubectl) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    pods = [job.uid(role) for role in ROLES]
    operator("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")
    operator("rollout", "status", "deployment/ytrain-operator", f"--timeout={LIMIT:.0f}s", seconds=LIMIT)
    assert_none_was_made_anew(job, pods)
    succeeded(job)
    assert job.status["restarts"] == 0


@pytest.mark.usefixtures("own_nodes")
def test_a_node_is_unplugged(job: Job) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    node = job.pod("worker-1")["spec"]["nodeName"]
    other = "node-a" if node == "node-b" else "node-b"
    before = job.uid("worker-1")
    operations.set_plugged(node, False, print)
    try:
        job.wait_for(
            f"worker 1 on {other}",
            lambda: (pod := job.pod("worker-1")) and pod["metadata"]["uid"] != before
            and pod["spec"].get("nodeName") == other and pod["status"]["phase"] == "Running",
        )  # fmt: skip
        succeeded(job)
    finally:
        operations.set_plugged(node, True, print)


def test_a_worker_uses_more_memory_than_it_may(job: Job) -> None:
    limits = {"limits": {"memory": "150Mi"}}
    job.apply({"workers": {"resources": limits}, "policy": {"restarts": 1}})
    job.wait_for_phase("Failed")
    failure = job.status["failure"]
    assert failure["class"] == "HostOutOfMemory", job.told()
    assert "150Mi" in failure["hint"] and "300Mi" in failure["hint"]
    assert job.status["podFailures"]["count"] == 2


@contextmanager
def api_server_silent() -> Iterator[None]:
    """The API server hears nothing, as on an overloaded or updated control plane."""
    known = state.load()
    assert known is not None
    waiting = known.components["kube-apiserver"].pid  # nsenter, which stops when what it waits for is stopped
    processes = [*descendants(waiting), waiting]
    assert len(processes) > 1
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def descendants(pid: int) -> list[int]:
    """Of a process, itself left out."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


WAITS = {
    "image": ({"image": "example.invalid/nothing:1"}, "ImagePull", "spec.image"),
    "node": (
        {"workers": {"template": {"spec": {"nodeSelector": {"disk": "none"}}}}},
        "Unschedulable",
        "node affinity/selector",
    ),
    "device": ({"workers": {"deviceResource": "nvidia.com/gpu"}}, "Unschedulable", "nvidia.com/gpu"),
    "volume": ({"data": {"train": [{"source": "pvc://nowhere/train.jsonl"}]}}, "Volume", "nowhere"),
    "secret": ({"secrets": ["nowhere"]}, "ContainerConfig", "nowhere"),
}


@pytest.mark.parametrize("what", WAITS)
def test_why_it_waits_is_told(job: Job, what: str) -> None:
    spec, reason, said = WAITS[what]
    job.apply(spec)
    job.wait_for(
        f"Ready is false for {reason}",
        lambda: (ready := job.condition("Ready")).get("status") == "False" and ready["reason"] == reason,
    )
    assert job.phase == "Pending"
    assert said in job.condition("Ready")["message"]
    job.wait_for("an event", lambda: reason in job.kubectl("describe", "ytj", job.name))


def test_a_quota_is_told_and_waited_for(job: Job) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"requests.memory": "2Gi"}},
    }
    job.kubectl.apply(quota)
    try:
        job.apply({"workers": {"resources": {"requests": {"memory": "2Gi"}}}})
        job.wait_for("quota told", lambda: "exceeded quota: small" in job.condition("Ready").get("message", ""))
    finally:
        job.kubectl("delete", "resourcequota", "small")
    job.wait_for_phase("Succeeded")


@pytest.mark.usefixtures("own_nodes")
def test_the_api_server_is_silent_for_a_while(job: Job) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    pods = [job.uid(role) for role in ROLES]
    with api_server_silent():
        time.sleep(SILENT_SECONDS)
    wait_for("the API server", job.kubectl.ready, seconds=LIMIT)
    assert_none_was_made_anew(job, pods)
    succeeded(job)
    assert job.status["restarts"] == 0
