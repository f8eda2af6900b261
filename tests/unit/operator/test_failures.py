"""Why a job failed or waits, in a word and a hint: from what kubelets, schedulers and the launcher say."""

import json
from typing import Any

import pytest
from small_cluster import START, SmallCluster

from ytrain_api.errors import Diverged, RewardError
from ytrain_operator.timestamps import to_text

pytestmark = pytest.mark.unit


def failed(word: dict[str, Any], spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """The failure of a job whose launcher spoke this last word."""
    cluster = SmallCluster(spec).trained()
    cluster.end_pod("bot-launcher", word["exitCode"], message=json.dumps(word))
    cluster.settle()
    failure: dict[str, Any] = cluster.status["failure"]
    return failure


def word(exit_code: int, message: str, **failure: Any) -> dict[str, Any]:
    status = {"job": "bot", "state": "Failed", "generation": 2, "restarts": 1, "workers": {}, "failure": failure}
    return {"exitCode": exit_code, "message": message, "status": status if failure else None}


@pytest.mark.parametrize(
    ("last", "kind", "hint"),
    [
        (word(3, "train.jsonl:7: no JSON"), "DataError", "data.maxBadFraction"),
        (word(2, "hf://a/b: no such model"), "SpecError", "new name"),
        (word(4, "rank 0: loss not finite", **{"class": Diverged.__name__}), "Diverged", "optimization.learningRate"),
        (word(4, "rank 0: spec.rl.reward: no answer", **{"class": RewardError.__name__}), "RewardError", "check"),
        (word(2, "spec.rl.reward.python.source: reward.py has no function 'score'"), "RewardError", "check"),
        (
            word(2, "spec.model.source: the model's logits are not finite in torch.float32: its"),
            "SpecError",
            "new name",
        ),
        (word(4, "the disk is full: /work"), "VolumeFull", "checkpoint.keep is 2"),
        (
            word(5, "rank 0 ended", **{"class": "OutOfMemoryError", "lastLines": ["torch.OutOfMemoryError: CUDA ..."]}),
            "DeviceOutOfMemory",
            "gradientCheckpointing",
        ),
        (word(5, "no step for 60 s", **{"class": "Hang"}), "Hang", "hangTimeout (auto)"),
        (word(5, "rank 1 was ended by SIGKILL (out of memory?)", signal=9, rank=1), "HostOutOfMemory", "memory limit"),
        (word(5, "worker 1 is gone", **{"class": "LostWorker"}), "LostWorker", "events"),
        (word(5, "x", lastLines=["Watchdog caught collective operation timeout"]), "CommunicationTimeout", "network"),
        (word(5, "5 restarts in a row gained no step"), "RanksFailed", "last lines"),
    ],
)
def test_classes(last: dict[str, Any], kind: str, hint: str) -> None:
    failure = failed(last)
    assert failure["class"] == kind
    assert hint in failure["hint"]
    assert failure["message"] == last["message"]


def test_the_rank_that_failed_is_named() -> None:
    failure = failed(word(5, "rank 1 was ended by SIGKILL", rank=1, signal=9, lastLines=["a", "b"]))
    assert (failure["rank"], failure["signal"], failure["lastLines"]) == (1, 9, ["a", "b"])
    assert "exitCode" not in failure


@pytest.mark.parametrize(
    ("spec", "said"),
    [({}, "jobs.launcherResources"), ({"launcher": {"resources": {"limits": {"memory": "256Mi"}}}}, "such as 512Mi")],
)
def test_a_launcher_without_memory_is_not_taken_for_a_worker(spec: dict[str, Any], said: str) -> None:
    cluster = SmallCluster(spec).trained()
    cluster.end_pod("bot-launcher", 137, reason="OOMKilled")
    cluster.settle()
    failure = cluster.status["failure"]
    assert failure["class"] == "HostOutOfMemory"
    assert said in failure["hint"]
    assert "worker" not in failure["hint"]
    assert "model." not in failure["hint"]


def evicted(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """The failure that is told when a kubelet has ended a pod of a node that is short of memory."""
    cluster = SmallCluster(spec).trained()
    said = "The node was low on resource: memory."
    cluster.pods[name]["status"] = {"phase": "Failed", "reason": "Evicted", "message": said}
    cluster.settle()
    failure: dict[str, Any] = cluster.status["failure"]
    assert (failure["class"], failure["pod"]) == ("Evicted", name)
    assert said in failure["message"]
    return failure


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({}, "Raise launcher.resources.requests in a new job"),
        ({"requests": {"cpu": "1", "memory": "256Mi"}}, "launcher.resources.requests (now memory 256Mi) in a new job"),
    ],
)
def test_an_evicted_launcher_is_not_taken_for_a_worker(resources: dict[str, Any], said: str) -> None:
    hint = evicted("bot-launcher", {"launcher": {"resources": resources}})["hint"]
    assert said in hint and "jobs.launcherResources" in hint
    assert "workers.resources" not in hint


@pytest.mark.parametrize(
    ("requests", "said"),
    [({}, "requests: memory, ephemeral-storage"), ({"memory": "4Gi"}, "requests: ephemeral-storage")],
)
def test_an_evicted_worker_is_told_which_requests_it_lacks(requests: dict[str, Any], said: str) -> None:
    hint = evicted("bot-worker-1", {"workers": {"resources": {"requests": requests}}})["hint"]
    assert f"workers.resources.{said}." in hint and "launcher" not in hint


@pytest.mark.parametrize(
    ("spec", "said", "unsaid"),
    [
        (
            {"optimization": {"microBatchTokens": 4096}},
            ["microBatchTokens below 4096 (at least data.maxTokens, 512)"],
            [],
        ),
        ({"optimization": {"microBatchTokens": 512}}, ["data.maxTokens below 512"], ["microBatchTokens"]),
        ({"model": {"gradientCheckpointing": True, "lora": {}}}, [], ["gradientCheckpointing", "model.lora"]),
        ({"workers": {"resources": {"limits": {"memory": "4Gi"}}}}, ["is 4Gi", "such as 8Gi"], []),
    ],
)
def test_hints_never_ask_for_what_is_so_already(spec: dict[str, Any], said: list[str], unsaid: list[str]) -> None:
    cluster = SmallCluster(spec).trained()
    cluster.end_pod("bot-worker-0", 137, reason="OOMKilled")
    cluster.settle()
    hint = cluster.status["failure"]["hint"]
    assert all(words in hint for words in said)
    assert not any(words in hint for words in unsaid)


def waiting(state: dict[str, Any], spec: dict[str, Any] | None = None) -> tuple[str, str]:
    """Reason and message of Ready while a worker waits."""
    cluster = SmallCluster(spec)
    cluster.settle()
    cluster.start_pods("bot-launcher", "bot-worker-0")
    cluster.pods["bot-worker-1"]["status"] |= state
    cluster.settle()
    ready = cluster.condition("Ready")
    assert ready.status == "False"
    assert cluster.condition("Stalled").status == "False", "it may pass by itself"
    return ready.reason, ready.message


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]}


def held(reason: str, message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": reason, "message": message}}}]}


GPUS = {"workers": {"devices": 4, "deviceResource": "nvidia.com/gpu"}}


@pytest.mark.parametrize(
    ("state", "spec", "reason", "says"),
    [
        (unscheduled("0/2 nodes are available: 2 Insufficient cpu."), {}, "Unschedulable", "2 Insufficient cpu"),
        (
            unscheduled("2 Insufficient nvidia.com/gpu."),
            GPUS,
            "Unschedulable",
            "4 x nvidia.com/gpu for each of 2 workers",
        ),
        (unscheduled('persistentvolumeclaim "work" not found'), {}, "Volume", "Create the claim"),
        (unscheduled("1 node(s) had untolerated taint {gpu: }"), {}, "Unschedulable", "toleration"),
        (unscheduled("", "SchedulingGated"), {}, "Queued", "SchedulingGated"),
        (held("ImagePullBackOff", "Back-off pulling image"), {}, "ImagePull", "jobs.image in its settings"),
        (held("ErrImagePull", "not found"), {"image": "r/x:1"}, "ImagePull", "spec.image (r/x:1)"),
        (held("CreateContainerConfigError", 'secret "hf" not found'), {}, "ContainerConfig", 'secret "hf" not found'),
        (held("ContainerCreating", ""), {}, "PodsStarting", "bot-worker-1 is being started"),
        (
            {
                "initContainerStatuses": [{"name": "fetch", "state": {"waiting": {"reason": "ErrImagePull"}}}],
                **held("PodInitializing", ""),
            },
            {},
            "ImagePull",
            "ErrImagePull",
        ),
    ],
)
def test_waiting(state: dict[str, Any], spec: dict[str, Any], reason: str, says: str) -> None:
    found, message = waiting(state, spec)
    assert found == reason
    assert says in message


def test_a_pod_that_kueue_holds_says_whose_queue_it_waits_in() -> None:
    cluster = SmallCluster({"queue": "team"})
    cluster.settle()
    for pod in cluster.pods.values():
        pod["metadata"]["finalizers"] = ["kueue.x-k8s.io/managed"]
        pod["status"] = {"phase": "Pending", **unscheduled("non-empty scheduling gates", "SchedulingGated")}
    cluster.settle()
    ready = cluster.condition("Ready")
    assert ready.reason == "Queued"
    assert "(3 pods wait alike). Kueue admits" in ready.message
    assert "`kubectl -n team describe workloads`" in ready.message


def test_a_pod_that_does_not_begin_says_where_to_look() -> None:
    """A missing ConfigMap shows in the pod's events alone, which the operator does not read."""
    cluster = SmallCluster()
    cluster.settle()
    cluster.start_pods("bot-worker-0", "bot-worker-1")
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": to_text(START)}
    cluster.pods["bot-launcher"]["status"] |= {"conditions": [placed], **held("ContainerCreating", "")}
    cluster.settle()
    assert cluster.condition("Ready").reason == "PodsStarting"
    wait = cluster.plan().again_after
    assert wait is not None
    cluster.pass_time(wait)
    cluster.settle()
    assert cluster.condition("Ready").reason == "SlowStart"
    assert "describe pod bot-launcher" in cluster.condition("Ready").message
    assert "Warning SlowStart" in cluster.events


def test_an_init_container_that_fails_is_named() -> None:
    cluster = SmallCluster().trained()
    ended = {"exitCode": 3, "reason": "Error", "message": "no such bucket"}
    cluster.pods["bot-worker-0"]["status"] = {
        "phase": "Failed",
        "initContainerStatuses": [{"name": "fetch", "state": {"terminated": ended}}],
        **held("PodInitializing", ""),
    }
    cluster.settle()
    failure = cluster.status["failure"]
    assert "init container fetch ended with exit code 3" in failure["message"]
    assert "no such bucket" in failure["lastLines"]
    assert cluster.phase != "Failed", "its code is not the trainer's"
