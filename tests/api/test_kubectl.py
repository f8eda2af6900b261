"""Jobs as people and GitOps tools bring them: applied again and again, by several field managers, edited, refused."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from live import InNamespace, Namespace, until
from small_cluster import job_object
from tests.cluster.failures import ClusterError
from tests.cluster.kubectl import Kubectl

pytestmark = pytest.mark.api

CLIENT_SIDE, SERVER_SIDE = ("apply",), ("apply", "--server-side")

Kubectls = Callable[..., Any]


@pytest.fixture
def kubectl(api_cluster: Kubectl) -> Kubectls:
    """`await kubectl(namespace, "get", "ytj")`, while operators go on."""

    async def run(namespace: Namespace, *arguments: str, **options: Any) -> str:
        return await asyncio.to_thread(Kubectl(api_cluster.kubeconfig, namespace.name), *arguments, **options)

    return run


def as_file(spec: dict[str, Any] | None = None) -> str:
    job = job_object(spec)
    job["metadata"] = {"name": "bot"}
    return yaml.safe_dump(job)


async def no_pod_is_placed(namespace: Namespace) -> bool:
    """Whether the scheduler has looked at all pods and found no place for any."""
    pods = (await namespace.pods()).values()
    said = [each for pod in pods for each in pod.status.conditions or () if each.type == "PodScheduled"]
    return len(said) == 3 and all(each.status == "False" for each in said)


def managers(job: dict[str, Any]) -> set[str]:
    return {each["manager"] for each in job["metadata"]["managedFields"]}


@pytest.mark.parametrize("how", [CLIENT_SIDE, SERVER_SIDE], ids=" ".join)
@pytest.mark.parametrize("example", [None, "examples/sftjob.yaml"])
def test_the_same_file_again_changes_nothing(
    in_namespace: InNamespace, kubectl: Kubectls, how: tuple[str, ...], example: str | None
) -> None:
    text = Path(example).read_text() if example else as_file()

    async def test(namespace: Namespace) -> None:
        async with namespace.operator(resyncSeconds=1):
            await kubectl(namespace, *how, "--filename=-", text=text)
            if example is None:
                await namespace.all_run()
                namespace.tell(step=10)
                await namespace.phase_is("Running")
            else:
                await until("the scheduler says that a claim is missing", partial(no_pod_is_placed, namespace))
            await namespace.all_looked_at()
            before = await namespace.versions()
            await kubectl(namespace, *how, "--filename=-", text=text)
            await namespace.all_looked_at()
            assert await namespace.versions() == before

    in_namespace(test)


def test_two_field_managers_own_what_they_apply(in_namespace: InNamespace, kubectl: Kubectls) -> None:
    async def test(namespace: Namespace) -> None:
        async def apply(manager: str, text: str) -> None:
            await kubectl(namespace, *SERVER_SIDE, f"--field-manager={manager}", "--filename=-", text=text)

        async with namespace.operator():
            author = as_file({"policy": {"restarts": 7}})
            await apply("author", author)
            await namespace.all_run()
            namespace.tell(step=10)
            await namespace.phase_is("Running")
            platform = {
                **{name: job_object()[name] for name in ("apiVersion", "kind")},
                "metadata": {"name": "bot", "labels": {"cost-centre": "7"}},
                "spec": {"policy": {"ttlAfterFinished": "1h"}},
            }
            await apply("platform", yaml.safe_dump(platform))
            await apply("author", author)
            job = await namespace.job()
            assert job["spec"]["policy"]["restarts"] == 7
            assert job["spec"]["policy"]["ttlAfterFinished"] == "1h"
            assert job["metadata"]["labels"] == {"cost-centre": "7"}
            assert managers(job) == {"author", "platform", "ytrain-operator"}
            assert len(await namespace.pods()) == 3, "nothing was started again"
            platform["spec"] = {"policy": {"restarts": 1}}
            with pytest.raises(ClusterError, match=r'conflict with "author".*\.spec\.policy\.restarts'):
                await apply("platform", yaml.safe_dump(platform))

    in_namespace(test)


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        ({"model": {"source": "pvc://models/other"}}, "spec.model: Invalid value.*model is fixed once the job exists"),
        ({"image": "registry.example/other:2"}, "image is fixed once the job exists; create a new job"),
        ({"workers": {"replicas": 1}}, r"spec.workers.replicas.*set suspend: true first"),
        ({"workers": {"devices": 2}}, r"spec.workers:.*create a new job"),
        ({"optimization": {"epochs": 1}}, r"spec.optimization.epochs.*can only be raised"),
    ],
)
@pytest.mark.parametrize("how", [CLIENT_SIDE, SERVER_SIDE], ids=" ".join)
def test_an_edit_of_what_is_fixed_is_refused_with_the_field_and_the_way_out(
    in_namespace: InNamespace, kubectl: Kubectls, how: tuple[str, ...], edited: dict[str, Any], says: str
) -> None:
    async def test(namespace: Namespace) -> None:
        await kubectl(namespace, *how, "--filename=-", text=as_file())
        before = await namespace.versions()
        with pytest.raises(ClusterError, match=says):
            await kubectl(namespace, *how, "--filename=-", text=as_file(edited))
        assert await namespace.versions() == before

    in_namespace(test)


def test_what_may_change_changes(in_namespace: InNamespace, kubectl: Kubectls) -> None:
    async def test(namespace: Namespace) -> None:
        async with namespace.operator():
            await kubectl(namespace, "apply", "--filename=-", text=as_file())
            await namespace.all_run()
            changed = {"policy": {"restarts": 9}, "optimization": {"epochs": 9}}
            await kubectl(namespace, "apply", "--filename=-", text=as_file(changed))
            spec = (await namespace.job())["spec"]
            assert (spec["policy"]["restarts"], spec["optimization"]["epochs"]) == (9, 9)

    in_namespace(test)
