"""This tree's product in a cluster: its two images in the nodes, its chart installed, folders copied onto a volume."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.cluster import operations, programs
from tests.cluster.failures import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.workloads import RESTRICTED_CONTAINER, RESTRICTED_POD, Object, pod
from tests.image.build import Settings, build

NAMESPACE = "ytrain-system"
LIMIT_SECONDS = 300.0

CHART = Path(__file__).resolve().parents[2] / "helm/ytrain"


def load_images(say: Callable[[str], None]) -> dict[str, str]:
    """Build what is not built, load it into both nodes; returns the images' names by target."""
    names = {}
    for target in ("operator", "trainer"):
        say(f"the {target}'s image")
        image = build(target, Settings.from_environment())
        operations.load(str(image.archive), say)
        names[target] = image.short_name
    return names


def install(cluster: Kubectl, images: Mapping[str, str], *values: str) -> None:
    """`helm upgrade --install`, and wait until the operator serves; `values` are `--set`'s."""
    ours = (f"image={images['operator']}", f"jobs.image={images['trainer']}", "crds.keep=false", *values)
    sets = [word for value in ours for word in ("--set", value)]
    helm(cluster, "upgrade", "--install", "ytrain", CHART, "--create-namespace", "--wait", "--timeout=5m", *sets)


def uninstall(cluster: Kubectl) -> None:
    """`helm uninstall`, and wait until the operator's pods are gone."""
    helm(cluster, "uninstall", "ytrain", "--wait", "--timeout=5m")


def helm(cluster: Kubectl, *arguments: str | Path) -> None:
    """helm in the operator's namespace."""
    programs.build(["helm"])
    command: list[str | Path] = [
        programs.path_of("helm"),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--namespace={NAMESPACE}",
    ]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS + 60, check=False
    )
    if done.returncode:
        raise ClusterError(f"helm {arguments[0]}: {(done.stderr or done.stdout).strip()}")


def shell_pod(name: str, image: str, *claims: str) -> Object:
    """A pod of the trainer's image that waits for commands, with each claim where a worker has it: /claims/CLAIM."""
    return pod(
        name,
        {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {**RESTRICTED_POD, "fsGroup": 1000},
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "command": ["tini", "--", "sleep", "infinity"],
                    "securityContext": RESTRICTED_CONTAINER,
                    "volumeMounts": [{"name": claim, "mountPath": f"/claims/{claim}"} for claim in claims],
                }
            ],
            "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims],
        },
    )


def copy_in(kubectl: Kubectl, pod_name: str, source: Path, names: list[str], target: str) -> None:
    """Copy files and folders of `source` into a pod's folder, as `kubectl cp` does."""
    packed = subprocess.Popen(["tar", "--create", "--directory", source, *names], stdout=subprocess.PIPE)
    unpack = ["exec", "--stdin", pod_name, "--", "tar", "--extract", "--no-same-owner", "--directory", target]
    done = subprocess.run(
        kubectl.command(*unpack),
        stdin=packed.stdout,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if packed.wait() or done.returncode:
        raise ClusterError(f"{source} cannot be copied to {pod_name}:{target}: {done.stderr.strip()}")
