"""`up` and `down`, twice, against a second cluster, and killed in the middle: nothing may stay behind on the host."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import cgroups, network, state, teardown, two_nodes
from tests.cluster.kubectl import Kubectl
from tests.cluster.nodes import CGROUPS

pytestmark = pytest.mark.e2e

OURS = (f"{state.FOLDER}/", "containerd-shim", "trap '' CHLD")
OTHERS = re.compile(r"yt[tnf]\d")
"""Links of tests/faults, whose tests may run beside these."""

PRIVATE_TO_NODES = ("/run/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")


@pytest.fixture
def cluster_to_take_down(cluster: Kubectl, found_up: bool) -> Iterator[Kubectl]:
    """The session's cluster, unless a person needs it."""
    if found_up or cluster.kubeconfig != two_nodes.kubeconfig_of():
        pytest.skip("this would take down a cluster that was up before the tests")
    yield cluster
    teardown.down(print)


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m tests.cluster` as a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", *arguments],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def traces() -> dict[str, list[str]]:
    """What a cluster makes on the host."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "processes": sorted(
            line for line in map(command_line, Path("/proc").iterdir()) if any(o in line for o in OURS)
        ),
        "mounts": [line for line in mounts if any(ours in line for ours in (str(state.FOLDER), *PRIVATE_TO_NODES))],
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir() if not OTHERS.match(path.name)),
        "cgroups": [str(root) for root in cgroups.hierarchies() if (root / CGROUPS).exists()],
        "packet filter": subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        ),
        "routes": subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout.split("\n"),
        "folders": [f"{top}: {sorted(p.name for p in Path(top).glob('*'))}" for top in PRIVATE_TO_NODES],
        "kernel settings": [Path("/proc/sys", name).read_text() for name in teardown.KERNEL_SETTINGS],
        "state": sorted(path.name for path in state.FOLDER.iterdir() if path.name not in ("logs", "lock")),
    }


def command_line(process: Path) -> str:
    """A process's command line; empty for what is none, and for a test runner that only names the others."""
    try:
        line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    return "" if "pytest" in line or "tests.cluster build" in line else line


def test_up_again_changes_nothing(cluster_to_take_down: Kubectl) -> None:
    before = state.load()
    two_nodes.up(print)
    assert state.load() == before


def test_a_second_cluster_is_refused(cluster_to_take_down: Kubectl, tmp_path: Path) -> None:
    two_nodes.up(print)
    second = command("up", YTRAIN_CLUSTER_FOLDER=str(tmp_path))
    _, said = second.communicate(timeout=180)
    assert second.returncode == 1
    assert f"a cluster is already up, in {state.FOLDER}" in said


def test_down_leaves_nothing_and_may_be_repeated(cluster_to_take_down: Kubectl) -> None:
    teardown.down(print)
    before = traces()
    two_nodes.up(print)
    assert network.HOST_LINK in traces()["links"]
    teardown.down(print)
    assert traces() == before
    said: list[str] = []
    teardown.down(said.append)
    assert said == ["no cluster is up"]


@pytest.mark.parametrize("moment", ["starting the control plane", "waiting for the nodes"])
def test_down_cleans_up_after_an_up_that_was_killed(cluster_to_take_down: Kubectl, moment: str) -> None:
    teardown.down(print)
    before = traces()
    killed = command("up")
    assert killed.stderr is not None
    assert any(moment in line for line in killed.stderr)
    killed.kill()
    killed.communicate()
    assert traces()["processes"] != before["processes"]
    teardown.down(print)
    assert traces() == before
