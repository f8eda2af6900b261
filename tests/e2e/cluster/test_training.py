"""The main road: the chart is installed, a job is applied, two nodes train, and a model lies on a volume."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import operations, programs, two_nodes
from tests.cluster.fixtures import new_namespace
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import RESTRICTED_CONTAINER, RESTRICTED_POD, claim, pod
from tests.conftest import write_chats
from tests.image.build import Settings, build

pytestmark = pytest.mark.e2e

LIMIT = 300.0
"""Seconds after which what was waited for counts as never coming."""
OPERATOR = "ytrain-system"
NAME = "tiny"
STEPS = 200

SEED = """
from pathlib import Path
Path("/models/tiny").mkdir()
for file in Path("/seed").iterdir():
    if file.is_file():
        Path("/models/tiny", file.name).write_bytes(file.read_bytes())
"""
LOAD = "import transformers; transformers.AutoModelForCausalLM.from_pretrained('/models/trained')"


@pytest.fixture(scope="session")
def images(cluster: Kubectl) -> dict[str, str]:
    """The names of the operator's and the trainer's image, which both nodes have."""
    if cluster.kubeconfig != two_nodes.kubeconfig_of():
        pytest.skip("images are loaded into nodes of our own cluster only")
    names = {}
    for target in ("operator", "trainer"):
        image = build(target, Settings.from_environment())
        operations.load(str(image.archive), print)
        names[target] = image.short_name
    return names


@pytest.fixture(scope="session")
def operator(cluster: Kubectl, images: dict[str, str]) -> Iterator[Kubectl]:
    """The chart, installed; kubectl in its namespace."""
    programs.build(["helm"])

    def helm(*arguments: str) -> None:
        command = [programs.path_of("helm"), f"--kubeconfig={cluster.kubeconfig}", f"--namespace={OPERATOR}"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    values = (f"image={images['operator']}", f"jobs.image={images['trainer']}", "crds.keep=false")
    sets = [word for value in values for word in ("--set", value)]
    helm("install", "ytrain", "helm/ytrain", "--create-namespace", "--wait", f"--timeout={LIMIT:.0f}s", *sets)
    yield Kubectl(cluster.kubeconfig, OPERATOR)
    helm("uninstall", "ytrain", "--wait")
    cluster("delete", "namespace", OPERATOR, "--wait=false")


@pytest.fixture
def kubectl(
    operator: Kubectl, cluster: Kubectl, images: dict[str, str], model_folder: Path, tmp_path: Path
) -> Iterator[Kubectl]:
    """A namespace with data in a ConfigMap and the small model on a volume that both nodes see."""
    write_chats(tmp_path / "train.jsonl", 20)
    with new_namespace(cluster) as within:
        within("create", "configmap", "chats", f"--from-file={tmp_path / 'train.jsonl'}")
        within("create", "configmap", "seed", f"--from-file={model_folder}")
        within.apply(claim("models", "shared", "ReadWriteMany"), claim("work", "shared", "ReadWriteMany"))
        run_python(within, "seed", images["trainer"], SEED)
        yield within


def run_python(kubectl: Kubectl, name: str, image: str, code: str) -> None:
    """Run code in the trainer's image, with the models at /models."""
    spec = {
        "restartPolicy": "Never",
        "securityContext": {**RESTRICTED_POD, "fsGroup": 1000},
        "containers": [
            {
                "name": name,
                "image": image,
                "command": ["python", "-c", code],
                "securityContext": RESTRICTED_CONTAINER,
                "volumeMounts": [{"name": "models", "mountPath": "/models"}, {"name": "seed", "mountPath": "/seed"}],
            }
        ],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "seed", "configMap": {"name": "seed"}},
        ],
    }
    kubectl.apply(pod(name, spec))
    wait_for(f"pod {name}", lambda: phase(kubectl, "pod", name) in ("Succeeded", "Failed"), seconds=LIMIT)
    assert phase(kubectl, "pod", name) == "Succeeded", kubectl("logs", name)


def phase(kubectl: Kubectl, kind: str, name: str) -> str:
    return str(kubectl.get(kind, name).get("status", {}).get("phase", ""))


def job(**spec: Any) -> dict[str, Any]:
    apart = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"ytrain.io/role": "worker"}},
    }
    optimization = {"learningRate": 1e-3, "epochs": 40, "batchSequences": 4, "schedule": "constant"}
    return {
        "apiVersion": "ytrain.io/v1alpha1",
        "kind": "YTrainJob",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"source": "pvc://models/tiny", "precision": "float32"},
            "data": {"train": [{"source": "configmap://chats/train.jsonl"}]},
            "sft": {"loss": {"kind": "nlirg"}},
            "optimization": optimization,
            "checkpoint": {"everySteps": 20},
            "output": {"target": "pvc://models/trained"},
            "storage": {"claim": "work"},
            "workers": {
                "replicas": 2,
                "deviceResource": "none",
                "template": {"spec": {"topologySpreadConstraints": [apart]}},
            },
            **spec,
        },
    }


def failure(kubectl: Kubectl) -> str:
    """All that may tell why a job failed."""
    if phase(kubectl, "ytj", NAME) != "Failed":
        return ""
    return kubectl("describe", "ytj", NAME) + kubectl("get", "pods", "--output=wide")


def wait_for_phase(kubectl: Kubectl, *wanted: str) -> None:
    wait_for(f"the job to be {' or '.join(wanted)}", lambda: phase(kubectl, "ytj", NAME) in wanted, seconds=LIMIT,
             trouble=lambda: failure(kubectl))  # fmt: skip


def step(kubectl: Kubectl) -> int:
    return int(kubectl.get("ytj", NAME).get("status", {}).get("progress", {}).get("step", 0))


def test_two_nodes_train_and_leave_a_model(kubectl: Kubectl, images: dict[str, str]) -> None:
    kubectl.apply(job())
    workers = [f"{NAME}-worker-{index}" for index in (0, 1)]
    wait_for("training", lambda: step(kubectl) > 0, seconds=LIMIT, trouble=lambda: failure(kubectl))
    assert {kubectl.get("pod", name)["spec"]["nodeName"] for name in workers} == {"node-a", "node-b"}
    wait_for_phase(kubectl, "Succeeded")
    status = kubectl.get("ytj", NAME)["status"]
    assert (status["progress"]["step"], status["progress"]["totalSteps"]) == (STEPS, STEPS)
    assert {c["type"]: c["status"] for c in status["conditions"]}["Complete"] == "True"
    run_python(kubectl, "load", images["trainer"], LOAD)
