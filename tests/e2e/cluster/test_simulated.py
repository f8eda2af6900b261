"""The tier without kubelets: pods that are played, and processes that end with whoever started them."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster.fixtures import new_namespace
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import pod, probe_spec

pytestmark = pytest.mark.e2e

BEGINS = "simulated.ytrain.io/"


def test_pods_run_and_end_by_their_annotations(api_cluster: Kubectl) -> None:
    good, bad = pod("good", probe_spec("sleep")), pod("bad", probe_spec("sleep"))
    good["metadata"]["annotations"] = {f"{BEGINS}runs-for": "1s"}
    bad["metadata"]["annotations"] = {f"{BEGINS}runs-for": "0s", f"{BEGINS}exit-code": "3", f"{BEGINS}message": 'a "b"'}
    with new_namespace(api_cluster) as kubectl:
        kubectl.apply(good, bad, pod("endless", probe_spec("sleep")))
        for name, phase in (("good", "Succeeded"), ("bad", "Failed"), ("endless", "Running")):
            kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", f"pod/{name}", "--timeout=180s", seconds=240)
        ended = kubectl.get("pod", "bad")["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", 'a "b"')
        kubectl("delete", "pod", "endless", "--timeout=180s", seconds=240)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_process_that_started_it_and_two_do_not_collide(
    api_cluster: Kubectl, end: signal.Signals
) -> None:
    second = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "api"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert second.stdout is not None
        said = re.fullmatch(r"export KUBECONFIG=(\S+)\n", second.stdout.readline())
        assert said is not None
        folder = Path(said[1]).parent.parent
        assert api_cluster.ready()
        second.send_signal(end)
        second.wait(timeout=180)
    finally:
        second.kill()
    wait_for("its components to end", lambda: not processes_of(folder))
    if end is not signal.SIGKILL:
        assert not folder.exists()


def processes_of(folder: Path) -> list[str]:
    """The processes that name a folder in their command line."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_text(errors="replace"))
        except OSError:  # it ended
            continue
    return [line for line in lines if str(folder) in line]
