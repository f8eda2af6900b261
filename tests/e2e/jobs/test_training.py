"""The main road: a job is applied, two nodes train, a model lies on a volume; suspended, resumed, changed, deleted."""

import json
import subprocess
import threading

import pytest
from jobs.job_on_cluster import FAST_LIFECYCLE, LIMIT, LONG, LONG_STEPS, ROLES, Job, assert_none_was_made_anew, shell
from tests.cluster import product
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for

pytestmark = pytest.mark.e2e

LOSSES = """
import sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("/claims/models/tiny")
chat = [{"role": "user", "content": "what is 4?"}, {"role": "assistant", "content": "4 is so so so so it"}]
ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
for name in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(f"/claims/models/{name}", dtype=torch.float32)
    print("loss", model(ids, labels=ids).loss.item())
"""


def losses(job: Job, image: str, *names: str) -> list[float]:
    """Of models on the volume, loaded as a user would, on a chat of the training data."""
    with shell(job.kubectl, image, "models") as pod:
        said = job.kubectl("exec", pod, "--", "python", "-c", LOSSES, *names, seconds=LIMIT)
    return [float(line.removeprefix("loss ")) for line in said.splitlines() if line.startswith("loss ")]


def steps_written(job: Job, image: str) -> list[int]:
    """The steps in the metrics on the work volume."""
    claim = f"{job.name}-run"
    with shell(job.kubectl, image, claim) as pod:
        read = f"cat /claims/{claim}/{job.name}-*/metrics.jsonl"
        lines = job.kubectl("exec", pod, "--", "sh", "-c", read, seconds=LIMIT).splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_two_nodes_train_and_leave_a_model(job: Job, images: dict[str, str]) -> None:
    job.apply({"policy": {"keepPods": "all"}})
    job.wait_for_phase("Succeeded")
    nodes = {job.pod(f"worker-{index}")["spec"]["nodeName"] for index in (0, 1)}
    assert len(nodes) == 2, job.told()
    status = job.status
    assert status["progress"]["summary"] == "100% (200/200)"
    assert (status["data"]["read"], status["data"]["skipped"]) == (20, 0)
    assert (status["checkpoint"]["step"], status["checkpoint"]["complete"]) == (200, True)
    assert status["output"]["path"] and status["output"]["digest"]
    assert status["usage"]["deviceSeconds"]["productive"] > 0
    assert job.condition("Complete")["status"] == "True"
    assert f"output in pvc://models/{job.name}" in job.condition("Ready")["message"]
    before, after = losses(job, images["trainer"], "tiny", job.name)
    assert after < 0.75 * before, (before, after)


def test_texts_are_read_by_two_nodes(job: Job) -> None:
    text = "The lazy dog sleeps while the quick brown fox jumps. " * 40
    job.kubectl("create", "configmap", "texts", f"--from-literal=fox.txt={text}")
    job.apply(
        {
            "cpt": {},
            "data": {"train": [{"source": "configmap://texts/fox.txt"}], "maxTokens": 128},
            "optimization": {"epochs": 4},
            "deepspeed": {"zeroStage": 2, "offload": "optimizer"},
        }
    )
    job.wait_for_phase("Succeeded")
    status = job.status
    assert (status["method"], status["data"]["read"], status["data"]["skipped"]) == ("cpt", 1, 0)
    assert status["data"]["supervisedTokens"] == len(text), "a token a byte, and the end; nothing predicts the first"
    assert status["progress"]["step"] == status["progress"]["totalSteps"] > 1
    assert status["output"]["digest"]


def test_two_nodes_answer_and_learn_what_is_rewarded(job: Job, images: dict[str, str]) -> None:
    reward = (
        "def score(prompt, answer, record):\n    return sum(c.isascii() for c in answer) / len(record['messages'])\n"
    )
    job.kubectl("create", "configmap", "reward", f"--from-literal=reward.py={reward}")
    rl = {
        "reward": {"python": {"source": "configmap://reward/reward.py:score"}},
        "rollout": {"promptsPerStep": 4, "chains": 3, "maxNewTokens": 6},
        "tree": {"rounds": 1, "forks": 2, "branches": 2},
    }
    job.apply({"rl": rl, "optimization": {"epochs": 2}, "deepspeed": {"zeroStage": 3}})
    job.wait_for_phase("Succeeded")
    status = job.status
    assert (status["method"], status["progress"]["summary"]) == ("rl", "100% (10/10)")
    assert (status["data"]["read"], status["restarts"]) == (20, 0) and status["output"]["digest"]
    with shell(job.kubectl, images["trainer"], f"{job.name}-run") as pod:
        read = f"cat /claims/{job.name}-run/{job.name}-*/metrics.jsonl"
        lines = job.kubectl("exec", pod, "--", "sh", "-c", read, seconds=LIMIT).splitlines()
    for figures in (json.loads(line)["rl"] for line in lines):
        assert (figures["groups"], figures["failedRewards"]) == (4, 0), (
            "the prompts of both workers, all of them scored"
        )


def test_two_nodes_score_a_corpus(job: Job, images: dict[str, str]) -> None:
    job.apply({"corpus": {}})
    job.wait_for_phase("Succeeded")
    status = job.status
    assert (status["method"], status["data"]["read"], status["restarts"]) == ("corpus", 20, 0)
    assert status["progress"]["step"] == status["progress"]["totalSteps"] and status["output"]["digest"]
    with shell(job.kubectl, images["trainer"], "models") as pod:
        said = job.kubectl("exec", pod, "--", "cat", f"/claims/models/{job.name}/scored.jsonl", seconds=LIMIT)
    assert sorted(json.loads(line)["line"] for line in said.splitlines()) == list(range(1, 21))


APART = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}


def test_fewer_workers_train_until_another_one_comes(job: Job, cluster: Kubectl) -> None:
    """Whichever worker the scheduler leaves over may only run on a node that takes none for a while."""
    cluster("cordon", "node-b")
    try:
        template = {"spec": {"topologySpreadConstraints": [APART]}}
        job.apply({"optimization": {"epochs": 100_000}, "workers": {"minReplicas": 1, "template": template}})
        job.wait_for_step(1)
        ready, told = job.condition("Ready"), job.told()
        assert (ready["status"], ready["reason"]) == ("True", "FewerWorkers"), told
        waiting = [role for role in ("worker-0", "worker-1") if "nodeName" not in job.pod(role)["spec"]]
        assert len(waiting) == 1, told
        said = f"1 of 2 workers run, which minReplicas allows; {job.name}-{waiting[0]}: "
        assert ready["message"].startswith(said), told
        assert (job.status["workers"]["ready"], job.status["restarts"]) == (1, 0), told
    finally:
        cluster("uncordon", "node-b")
    job.wait_for("both workers", lambda: job.condition("Ready")["reason"] == "PodsRunning")
    before = job.step
    job.wait_for("ranks of both", lambda: (job.status["restarts"], job.status["workers"]["ready"]) == (1, 2))
    job.wait_for_step(before + 1)
    assert "failure" not in job.status, job.told()


def test_applied_again_nothing_changes(job: Job) -> None:
    job.apply({"suspend": True})
    job.wait_for_phase("Suspended")
    before = job.kubectl.get("ytj", job.name)
    job.apply({"suspend": True})
    after = job.kubectl.get("ytj", job.name)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_suspended_and_resumed_with_one_worker(job: Job, images: dict[str, str]) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    job.patch({"suspend": True})
    job.wait_for_phase("Suspended")
    assert not job.pod("launcher") and not job.pod("worker-0") and not job.pod("worker-1")
    stopped = job.step
    assert 0 < stopped < LONG_STEPS
    job.patch({"suspend": False, "workers": {"replicas": 1}})
    job.wait_for_phase("Succeeded")
    assert job.status["progress"]["step"] == LONG_STEPS
    assert job.status["restarts"] == 0
    steps = steps_written(job, images["trainer"])
    assert steps == list(range(1, LONG_STEPS + 1)), "each step once: it went on where it was stopped"


def test_the_chart_is_upgraded_while_it_trains(
    job: Job, operator: Kubectl, cluster: Kubectl, images: dict[str, str]
) -> None:
    job.apply(LONG)
    job.wait_for_step(1)
    pods = [job.uid(role) for role in ROLES]
    old = {pod["metadata"]["uid"] for pod in operator.get("pods")["items"]}
    product.install(cluster, images, *FAST_LIFECYCLE, "workers=8")
    wait_for(
        "new replicas in place of the old ones",
        lambda: old.isdisjoint(pod["metadata"]["uid"] for pod in operator.get("pods")["items"]),
        seconds=LIMIT,
    )
    assert_none_was_made_anew(job, pods)
    job.wait_for_phase("Succeeded")
    assert job.status["restarts"] == 0


ENDLESS = {"optimization": {"epochs": 4000}, "checkpoint": {"everySteps": 200}}
"""Ten times as long: training may be fast, and who watches it slow."""

NOWHERE = {"workers": {"template": {"spec": {"nodeSelector": {"disk": "none"}}}}}


@pytest.mark.parametrize("moment", ["Pending", "Starting", "Running", "Saving"])
def test_deleted_while(job: Job, moment: str) -> None:
    selector = f"--field-selector=metadata.name={job.name}"
    watching = subprocess.Popen(
        job.kubectl.command("get", "ytj", selector, "--watch", "--output=jsonpath={.status.phase}{'\\n'}"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdout is not None
    limit = threading.Timer(LIMIT, watching.kill)
    limit.start()
    try:
        job.apply({**ENDLESS, **(NOWHERE if moment == "Pending" else {})})
        if moment == "Saving":
            job.wait_for_step(1)
            job.patch({"suspend": True})
        assert any(line.strip() == moment for line in watching.stdout), job.told()
    finally:
        limit.cancel()
        watching.kill()
        watching.communicate()
    job.delete()
    assert job.kubectl.get("pvc", f"{job.name}-run"), "volumes are the user's"


def test_wrong_data_are_told_with_file_and_line(job: Job) -> None:
    bad = "\n".join(['{"messages": [{"role": "user", "content": "a"}]}'] * 3)
    job.kubectl("create", "configmap", "bad", f"--from-literal=bad.jsonl={bad}")
    job.apply({"data": {"train": [{"source": "configmap://bad/bad.jsonl"}]}})
    job.wait_for_phase("Failed")
    failure = job.status["failure"]
    assert failure["class"] == "DataError"
    assert "bad.jsonl:1" in failure["message"]
    assert "maxBadFraction" in failure["hint"]
    described = job.kubectl("describe", "ytj", job.name)
    assert "bad.jsonl:1" in described
    assert "bad.jsonl:1" in job.kubectl("logs", f"{job.name}-launcher"), "it stays to be read"
