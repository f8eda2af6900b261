"""What is written to the API server: names, owners, security, volumes, arguments, and the job's own template."""

from typing import Any

import pytest
import yaml
from small_cluster import KEY, SmallCluster, job_file

from ytrain_api import parse_job
from ytrain_operator.manifests.secret import token
from ytrain_operator.manifests.template import merged
from ytrain_operator.planner.decide import decide
from ytrain_operator.settings import JobDefaults, Settings

pytestmark = pytest.mark.unit


def children(spec: dict[str, Any] | None = None, settings: Settings | None = None) -> dict[str, dict[str, Any]]:
    """What a new job makes, by kind, or by name for a pod."""
    cluster = SmallCluster(spec, settings)
    plan = decide(cluster.observed(), cluster.settings, KEY)
    made: dict[str, Any] = {
        child["metadata"]["name"] if child["kind"] == "Pod" else child["kind"]: child
        for child in (*plan.surroundings, *plan.pods)
    }
    return made


def container(pod: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in pod["spec"]["containers"] if each["name"] == "trainer")


def test_every_child_goes_with_its_job_but_the_work_volume() -> None:
    made = children({"storage": {"claim": None, "size": "10Gi"}})
    for name, child in made.items():
        owners = child["metadata"].get("ownerReferences", [])
        if name == "PersistentVolumeClaim":
            assert not owners
            continue
        (owner,) = owners
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("11111111-2222", True, True)


def test_pods_pass_pod_security_restricted() -> None:
    made = children()
    for pod in (made["bot-launcher"], made["bot-worker-0"]):
        spec, inside = pod["spec"], container(pod)["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["capabilities"] == {"drop": ["ALL"]}
        assert inside["readOnlyRootFilesystem"] is True
        assert spec["automountServiceAccountToken"] is False
        kinds = {next(key for key in volume if key != "name") for volume in spec["volumes"]}
        assert kinds <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}


def test_the_launcher_reads_the_job_that_the_user_wrote() -> None:
    document = yaml.safe_load(job_file(children({"suspend": False, "image": "x"})["Secret"]))
    job = parse_job(document)
    assert job.metadata.uid == "11111111-2222"
    assert job.spec.data.max_tokens == 512
    assert "suspend" not in document["spec"]
    assert "optimization" not in document["spec"], "a trainer of another version has defaults of its own"


def test_arguments_and_volumes_of_a_worker() -> None:
    pod = children()["bot-worker-1"]
    assert container(pod)["args"] == [
        "worker", "--launcher", "http://bot-ytrain:8750", "--index", "1",
        "--token-file", "/etc/ytrain/job/token", "--workdir", "/work/bot-11111111", "--device", "cpu",
        "--claim", "data=/claims/data", "--claim", "models=/claims/models",
    ]  # fmt: skip
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container(pod)["volumeMounts"]}
    assert mounts == {
        "/tmp": False,
        "/etc/ytrain/job": True,
        "/dev/shm": False,
        "/work": False,
        "/claims/data": True,
        "/claims/models": False,
    }


def test_config_maps_are_the_launchers_alone() -> None:
    made = children({"data": {"train": [{"source": "configmap://chats/train.jsonl"}]}})
    args = container(made["bot-launcher"])["args"]
    assert args[-2:] == ["--config-map", "chats=/configmaps/chats"]
    assert not any("configmap" in argument for argument in container(made["bot-worker-0"])["args"])


@pytest.mark.parametrize(
    ("spec", "sees"),
    [
        ({}, True),
        ({"storage": {"claim": None, "size": "1Gi"}}, True),
        ({"workers": {"replicas": 1}}, False),
    ],
)
def test_a_volume_for_one_node_stays_with_the_worker(spec: dict[str, Any], sees: bool) -> None:
    assert ("--workdir" in container(children(spec)["bot-launcher"])["args"]) == sees


@pytest.mark.parametrize(
    ("workers", "device", "limits"),
    [
        ({"devices": 2, "deviceResource": "nvidia.com/gpu"}, "cuda", {"nvidia.com/gpu": 2}),
        ({"devices": 1, "deviceResource": "amd.com/gpu"}, "cuda", {"amd.com/gpu": 1}),
        (
            {"devices": 4, "deviceResource": "none", "resources": {"limits": {"memory": "1Gi"}}},
            "cpu",
            {"memory": "1Gi"},
        ),
    ],
)
def test_devices(workers: dict[str, Any], device: str, limits: dict[str, Any]) -> None:
    inside = container(children({"workers": workers})["bot-worker-0"])
    assert inside["args"][inside["args"].index("--device") + 1] == device
    assert inside["resources"].get("limits", {}) == limits


def test_secrets_reach_workers_as_environment() -> None:
    made = children({"secrets": ["hf-token"]})
    assert container(made["bot-worker-0"])["envFrom"] == [{"secretRef": {"name": "hf-token"}}]
    assert "envFrom" not in container(made["bot-launcher"])


def test_the_jobs_template_is_merged_last_but_cannot_hide_the_pod() -> None:
    template = {
        "metadata": {"labels": {"team": "a", "ytrain.io/job": "other"}, "annotations": {"note": "b"}},
        "spec": {
            "nodeSelector": {"zone": "x"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "containers": [
                {"name": "trainer", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]},
                {"name": "sidecar", "image": "s"},
            ],
        },
    }
    pod = children({"workers": {"template": template}})["bot-worker-0"]
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"]["ytrain.io/job"] == "bot"
    noted = {"note": "b", "ytrain.io/replicas": "2", "ytrain.io/image": "ytrain-trainer:latest"}
    noted["ytrain.io/length"] = "epochs=3 maxSteps=None"
    assert pod["metadata"]["annotations"] == noted
    assert {"key": "gpu", "operator": "Exists"} in pod["spec"]["tolerations"]
    assert len(pod["spec"]["tolerations"]) == 3
    assert [each["name"] for each in pod["spec"]["containers"]] == ["trainer", "sidecar"]
    assert [each["name"] for each in container(pod)["env"]] == ["YTRAIN_CACHE", "NCCL_DEBUG"]


def test_a_template_makes_pods_whatever_it_says_it_is() -> None:
    template = {"apiVersion": "apps/v1", "kind": "PodTemplate", "spec": {"priorityClassName": "low"}}
    pods = SmallCluster({"workers": {"template": template}}).plan().pods
    assert {(pod["apiVersion"], pod["kind"]) for pod in pods} == {("v1", "Pod")}


def test_defaults_of_the_cluster() -> None:
    jobs = JobDefaults(image="r/t@sha256:0", queue="gpus", run_as_user=None, image_pull_secrets=["pull"])
    pod = children(settings=Settings(jobs=jobs))["bot-worker-0"]
    assert container(pod)["image"] == "r/t@sha256:0"
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert pod["metadata"]["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "3"
    assert "runAsUser" not in pod["spec"]["securityContext"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]


@pytest.mark.parametrize("replicas", [1, 3, 4096])
def test_kueue_admits_all_pods_of_a_start_as_one_group(replicas: int) -> None:
    cluster = SmallCluster({"queue": "gpus", "workers": {"replicas": replicas}})
    cluster.job["metadata"]["name"] = 50 * "a"
    pods = decide(cluster.observed(), cluster.settings, KEY).pods
    marks = {
        (*(pod["metadata"]["labels"][f"kueue.x-k8s.io/{label}"] for label in ("queue-name", "pod-group-name")),
         pod["metadata"]["annotations"]["kueue.x-k8s.io/pod-group-total-count"])
        for pod in pods
    }  # fmt: skip
    ((queue, group, total),) = marks
    assert (queue, int(total)) == ("gpus", len(pods))
    assert len(group) <= 63
    assert group.endswith(f"-{replicas}"), "a group of another size has another name"


def test_tokens_differ_by_job_and_by_key() -> None:
    assert token(KEY, "a") == token(KEY, "a")
    assert len({token(KEY, "a"), token(KEY, "b"), token(b"other", "a")}) == 3


A, B = {"name": "A", "value": "1"}, {"key": "b"}


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"command": ["a", "b"]}, {"command": ["c"]}, {"command": ["c"]}),
        ({"env": [A]}, {"env": [{"name": "A", "value": "2"}]}, {"env": [{"name": "A", "value": "2"}]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a"}, B]}, {"tolerations": [{"key": "a"}, B]}),
        ({"hostname": "a"}, {"hostname": "b"}, {"hostname": "b"}),
    ],
)
def test_merging(base: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]) -> None:
    assert merged(base, patch) == result


def test_workers_go_to_different_nodes_unless_the_job_says_otherwise() -> None:
    cluster = SmallCluster()
    cluster.settle()
    (apart,) = cluster.pods["bot-worker-0"]["spec"]["topologySpreadConstraints"]
    labels = cluster.pods["bot-worker-1"]["metadata"]["labels"]
    assert apart["labelSelector"]["matchLabels"].items() <= labels.items()
    assert apart["whenUnsatisfiable"] == "ScheduleAnyway"
    assert "topologySpreadConstraints" not in cluster.pods["bot-launcher"]["spec"]
    strict = [{"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}]
    cluster = SmallCluster({"workers": {"template": {"spec": {"topologySpreadConstraints": strict}}}})
    cluster.settle()
    (apart,) = cluster.pods["bot-worker-0"]["spec"]["topologySpreadConstraints"]
    assert (apart["maxSkew"], apart["whenUnsatisfiable"]) == (1, "DoNotSchedule")


def test_a_claim_for_everything_is_one_volume() -> None:
    same = {"output": {"target": "pvc://models/out"}, "storage": {"claim": "models"}}
    for name in ("bot-worker-0", "bot-launcher"):
        pod = children(same)[name]["spec"]
        claims = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        assert len(claims) == len({volume["persistentVolumeClaim"]["claimName"] for volume in claims})
        (volume,) = (each["name"] for each in claims if each["persistentVolumeClaim"]["claimName"] == "models")
        paths = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume}
        assert paths == ({"/claims/models", "/work"} if name == "bot-worker-0" else {"/work"})
