"""The chart: what helm makes of it, that the operator understands its settings, that an API server takes it."""

import math
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from small_cluster import SmallCluster
from tests.cluster import programs

import ytrain_operator.reconciler  # noqa: F401 - its metrics
from ytrain_operator.settings import Settings

pytestmark = pytest.mark.api

CHART = "helm/ytrain"
OPERATOR = f"registry.internal:5000/ytrain/operator@sha256:{64 * '0'}"
TRAINER = f"registry.internal:5000/ytrain/trainer@sha256:{64 * '1'}"
AIR_GAPPED = (
    f"image={OPERATOR}", f"jobs.image={TRAINER}", "imagePullSecrets={pull}", "jobs.imagePullSecrets={pull}",
)  # fmt: skip
ALL = (
    "namespaces={a,b}", "replicas=1", "crds.keep=false", "imagePullSecrets={pull}", "jobs.queue=gpus",
    "priorityClassName=high", "monitoring.serviceMonitor=true", "monitoring.prometheusRule=true",
    "monitoring.dashboard=true",
)  # fmt: skip

GOLDEN = Path("tests/golden/chart")
"""What helm makes of the chart, but for the CRD, which is checked below; `make golden` writes it anew."""
CASES: dict[str, tuple[str, ...]] = {"default": (), "everything": ALL, "air-gapped": AIR_GAPPED}

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def helm() -> Helm:
    """helm, of the cluster's own build."""
    programs.build(["helm"])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs.path_of("helm"), *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    return run


def rendered(
    helm: Helm, *values: str, release: str = "ytrain", namespace: str = "ytrain-system", how: str = "--set"
) -> list[dict[str, Any]]:
    sets = [word for value in values for word in (how, value)]
    done = helm("template", release, CHART, "--namespace", namespace, "--kube-version", "1.34.2", *sets)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.mark.parametrize("case", CASES)
def test_golden_files(helm: Helm, case: str) -> None:
    documents = [each for each in rendered(helm, *CASES[case]) if each["kind"] != "CustomResourceDefinition"]
    text = yaml.safe_dump_all(documents, sort_keys=False)
    path = GOLDEN / f"{case}.yaml"
    if "YTRAIN_WRITE_GOLDEN" in os.environ:
        path.write_text(text)
    assert text == path.read_text(), "if the change is meant: make golden"


def test_every_image_can_be_pinned_by_digest(helm: Helm) -> None:
    documents = rendered(helm, *AIR_GAPPED)
    (deployment,) = of_kind(documents, "Deployment")
    job = SmallCluster(settings=settings_in(documents))
    pods = [deployment["spec"]["template"], *job.plan().pods]
    containers = [each for pod in pods for each in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))]
    assert len(containers) == 4
    assert {each["image"] for each in containers} == {OPERATOR, TRAINER}


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def settings_in(documents: list[dict[str, Any]]) -> Settings:
    maps = (each for each in of_kind(documents, "ConfigMap") if "settings.yaml" in each["data"])
    return Settings.model_validate(yaml.safe_load(next(maps)["data"]["settings.yaml"]))


def test_lint(helm: Helm) -> None:
    done = helm("lint", "--strict", CHART, "--kube-version", "1.34.2")
    assert done.returncode == 0, done.stdout


def test_the_operator_understands_its_settings(helm: Helm) -> None:
    default = settings_in(rendered(helm))
    ours = Settings()
    assert default.lifecycle == ours.lifecycle
    assert default.namespace == ours.namespace
    assert default.jobs.model_copy(update={"image": ours.jobs.image}) == ours.jobs
    assert settings_in(rendered(helm, *ALL)).namespaces == ["a", "b"]


def test_names_of_digits_stay_text(helm: Helm) -> None:
    """Namespaces and releases may be named so; as numbers, no API server takes them."""
    digits = ("namespaces={1}", "imagePullSecrets={2}", "priorityClassName=3", "jobs.queue=4")
    documents = rendered(helm, *digits, release="5", namespace="6", how="--set-string")
    texts = [text for each in documents if each["kind"] != "CustomResourceDefinition" for text in named_texts(each)]
    assert {"1", "2", "3", "5", "6"} <= set(texts)
    assert {type(text) for text in texts} == {str}
    settings = settings_in(documents)
    assert (settings.namespace, settings.namespaces, settings.jobs.queue) == ("6", ["1"], "4")
    assert settings.operator_pod_labels["app.kubernetes.io/instance"] == "5"


def named_texts(value: Any, name: str = "") -> list[Any]:
    """What stands in an object where Kubernetes wants a name or a label."""
    if isinstance(value, list):
        return [text for each in value for text in named_texts(each, name)]
    if not isinstance(value, dict):
        return [value] if name in ("name", "namespace", "priorityClassName", "app.kubernetes.io/instance") else []
    return [text for key, each in value.items() for text in named_texts(each, key)]


def test_large_numbers_in_a_file_stay_whole(helm: Helm, tmp_path: Path) -> None:
    """Helm reads numbers of a file as floats, and would print one million as 1e+06."""
    file = tmp_path / "values.yaml"
    file.write_text("{workers: 1000000, resyncSeconds: 3600000, jobs: {runAsUser: 1000650000}}")
    settings = settings_in(rendered(helm, str(file), how="--values"))
    assert (settings.workers, settings.resync_seconds, settings.jobs.run_as_user) == (1000000, 3600000, 1000650000)


def test_who_may_edit_a_namespace_may_make_jobs(helm: Helm) -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind(rendered(helm), "ClusterRole")}
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    edit, view = roles["ytrain-jobs-edit"], roles["ytrain-jobs-view"]
    assert {edit["metadata"]["labels"].get(aggregate + name) for name in ("edit", "admin")} == {"true"}
    assert view["metadata"]["labels"][aggregate + "view"] == "true"
    assert {rule["resources"][0] for role in (edit, view) for rule in role["rules"]} == {"ytrainjobs"}
    assert "ytrain-jobs-edit" not in str(rendered(helm, "userRoles=false"))


def test_null_leaves_user_and_group_to_the_cluster(helm: Helm) -> None:
    jobs = settings_in(rendered(helm, "jobs.runAsUser=null", "jobs.fsGroup=null")).jobs
    assert (jobs.run_as_user, jobs.fs_group) == (None, None)
    jobs = settings_in(rendered(helm, "jobs.runAsUser=1000650000")).jobs
    assert (jobs.run_as_user, jobs.fs_group) == (1000650000, 1000)


def test_prometheus_keeps_the_labels_of_jobs(helm: Helm) -> None:
    """Ours are named namespace and job, like its own of what it scrapes; alert and dashboard name jobs by them."""
    (monitor,) = of_kind(rendered(helm, *ALL), "ServiceMonitor")
    assert all(endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"])


def test_the_networks_of_jobs_admit_the_operators_pods(helm: Helm) -> None:
    documents = rendered(helm)
    (deployment,) = of_kind(documents, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert settings_in(documents).operator_pod_labels.items() <= labels.items()


def test_namespaces_need_no_cluster_role(helm: Helm) -> None:
    assert of_kind(rendered(helm), "ClusterRole")
    documents = rendered(helm, *ALL)
    assert not of_kind(documents, "ClusterRole")
    assert not of_kind(documents, "ClusterRoleBinding")
    assert {role["metadata"]["namespace"] for role in of_kind(documents, "Role")} == {"ytrain-system", "a", "b"}


def test_the_crd_is_the_generated_one_and_stays(helm: Helm) -> None:
    (crd,) = of_kind(rendered(helm), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    with Path("crds/ytrainjobs.ytrain.io.yaml").open() as file:
        assert crd == yaml.safe_load(file)
    assert not of_kind(rendered(helm, "crds.install=false"), "CustomResourceDefinition")


@pytest.mark.parametrize("value", ["replica=3", "jobs.imgae=x", "monitoring.serviceMonitors=true", "replicas=0"])
def test_unknown_and_wrong_values_are_refused(helm: Helm, value: str) -> None:
    done = helm("template", "ytrain", CHART, "--kube-version", "1.34.2", "--set", value)
    assert done.returncode != 0
    assert value.partition("=")[0].rpartition(".")[2] in done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "image", "namespaces", "crds", "crds.install", "crds.keep", "jobs", "jobs.image", "lifecycle",
        "workers", "resyncSeconds", "podDisruptionBudget", "monitoring",
    ],
)  # fmt: skip
def test_what_may_not_be_null(helm: Helm, value: str) -> None:
    """For helm a value that is null is absent: jobs of another image, an operator that ends, a broken template."""
    done = helm("template", "ytrain", CHART, "--kube-version", "1.34.2", "--set", f"{value}=null")
    assert done.returncode != 0
    assert f"missing property '{value.rpartition('.')[2]}'" in done.stderr


def test_labels_of_a_build_between_two_releases(helm: Helm, tmp_path: Path) -> None:
    """A version may have a plus sign, a label may not."""
    version = "0.1.0+1a2b3c4"
    done = helm("package", CHART, "--version", version, "--app-version", version, "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("*.tgz")
    done = helm("template", "ytrain", str(packed), "--kube-version", "1.34.2")
    (deployment,) = of_kind([each for each in yaml.safe_load_all(done.stdout) if each], "Deployment")
    labels = deployment["metadata"]["labels"]
    assert labels["helm.sh/chart"] == "ytrain-0.1.0_1a2b3c4"
    assert labels["app.kubernetes.io/version"] == "0.1.0_1a2b3c4"


def test_prometheus_finds_what_it_selects_by_a_label(helm: Helm) -> None:
    """kube-prometheus-stack takes only what bears its release's name."""
    documents = rendered(helm, *ALL, "monitoring.labels.release=prometheus")
    for kind in ("ServiceMonitor", "PrometheusRule"):
        (found,) = of_kind(documents, kind)
        assert found["metadata"]["labels"]["release"] == "prometheus"


def test_an_alert_on_a_quantile_can_fire(helm: Helm) -> None:
    """Prometheus' quantile of a histogram is at most its last bound: beyond, one bucket is as good as another."""
    (rules,) = of_kind(rendered(helm, *ALL), "PrometheusRule")
    alerts = [alert["expr"] for group in rules["spec"]["groups"] for alert in group["rules"]]
    found = [re.fullmatch(r"histogram_quantile\(.*?(\w+)_bucket.*\) > (\d+)", alert) for alert in alerts]
    ((metric, threshold),) = [match.groups() for match in found if match]
    (histogram,) = [each for each in REGISTRY.collect() if each.name == metric]
    bounds = {float(sample.labels["le"]) for sample in histogram.samples if "le" in sample.labels}
    assert max(bounds - {math.inf}) > float(threshold)


def test_operators_that_cannot_start_do_not_block_a_drain(helm: Helm) -> None:
    (budget,) = of_kind(rendered(helm), "PodDisruptionBudget")
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_operator_hears_nothing_but_its_port(helm: Helm) -> None:
    documents = rendered(helm)
    (policy,) = of_kind(documents, "NetworkPolicy")
    (deployment,) = of_kind(documents, "Deployment")
    template = deployment["spec"]["template"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (port,) = template["spec"]["containers"][0]["ports"]
    assert policy["spec"]["ingress"] == [{"ports": [{"port": port["containerPort"], "protocol": "TCP"}]}]


def test_releases_with_namespaces_apart_stand_side_by_side(helm: Helm, kubeconfig: str) -> None:
    def install(release: str, namespace: str, served: str) -> subprocess.CompletedProcess[str]:
        sets = ("--set", "crds.install=false", "--set", f"namespaces={{{served}}}")
        where = ("--kubeconfig", kubeconfig, "--namespace", namespace)
        return helm("install", release, CHART, *where, "--create-namespace", *sets)

    try:
        for release, namespace, served in (("one", "side-one", "default"), ("two", "side-two", "kube-public")):
            done = install(release, namespace, served)
            assert done.returncode == 0, done.stderr
        done = install("three", "side-three", "default")
        assert done.returncode != 0, "two operators would serve one namespace"
        assert 'Role "ytrain-operator-jobs" in namespace "default" exists' in done.stderr
    finally:
        for release, namespace in (("one", "side-one"), ("two", "side-two")):
            helm("uninstall", release, "--kubeconfig", kubeconfig, "--namespace", namespace)


def test_an_api_server_takes_it(helm: Helm, kubeconfig: str) -> None:
    # In a namespace that is there already: a dry run makes none. The CRD is there too, by another manager.
    done = helm(
        "install", "ytrain", CHART, "--kubeconfig", kubeconfig, "--namespace", "default", "--dry-run=server",
        "--set", "crds.install=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kubectl get ytj -w" in done.stdout


@pytest.mark.parametrize(("keep", "says"), [("true", "leaves the CRD and all jobs"), ("false", "EVERY JOB")])
def test_notes_tell_what_uninstalling_does(helm: Helm, kubeconfig: str, keep: str, says: str) -> None:
    done = helm(
        "install", "ytrain", CHART, "--kubeconfig", kubeconfig, "--namespace", "default", "--dry-run=server",
        "--take-ownership", "--set", f"crds.keep={keep}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout.partition("\nNOTES:")[2]
