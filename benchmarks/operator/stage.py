"""Where the operator's benchmarks play: a Kubernetes of their own with simulated nodes, launchers that answer, and the
operator in a process of its own, whose processor time and memory are read from /proc.

All of it is in a network namespace whose loopback device has the simulated pods' addresses, so the operator asks
launchers over HTTP as in a real cluster. It needs root, or a kernel that lets everybody make such a namespace.
"""

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), *(str(REPOSITORY / "tests" / folder) for folder in ("api", "unit/operator"))]

from live import CLAIMS, Namespace, connect, install_crd  # noqa: E402
from small_cluster import job_object  # noqa: E402
from tests.cluster.__main__ import say  # noqa: E402
from tests.cluster.api_tier import PODS_CIDR, api_cluster  # noqa: E402
from tests.cluster.kubectl import Kubectl  # noqa: E402
from tests.ports import held_port  # noqa: E402

from ytrain_api.protocol import PORT  # noqa: E402

POLL = 0.1
NODES = 4
"""Simulated nodes, of 1,000 pods each."""

AT_ONCE = 20
"""Requests of the benchmark itself at the same time."""

_INSIDE = "YTRAIN_BENCH_INSIDE"


def enter_namespace() -> None:
    """Start this program again in a network namespace of its own, unless it is there."""
    if os.environ.get(_INSIDE):
        return
    prepare = f'ip link set lo up && ip route add local {PODS_CIDR} dev lo && exec "$@"'
    alone = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net"]
    command = [*alone, "sh", "-c", prepare, "sh", sys.executable, *sys.argv]
    os.execvpe(alone[0], command, {**os.environ, _INSIDE: "1"})


class Process:
    """The operator, and what it has used."""

    def __init__(self, kubeconfig: str, namespace: str, **more: Any) -> None:
        folder = Path(tempfile.mkdtemp())
        settings = folder / "settings.yaml"
        self._held = ExitStack()
        self._port = self._held.enter_context(held_port())
        given = {"namespace": namespace, "namespaces": [namespace], "metricsPort": self._port, "leaderElection": False}
        settings.write_text(yaml.safe_dump({**given, **more}))
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ytrain_operator.main", str(settings)],
                env={**os.environ, "KUBECONFIG": kubeconfig},
                stderr=log,
            )

    def memory(self) -> float:
        """Resident, in MB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    def seconds(self) -> float:
        """Of processor time."""
        return seconds_of(self._process.pid)

    def figures(self, metric: str) -> Counter[str]:
        """A metric's values by their labels; nothing while the process is only starting."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
                text = answer.read().decode()
        except OSError:
            return Counter()
        lines = re.findall(rf"^{metric}\{{(.*)\}} (.*)", text, re.MULTILINE)
        return Counter({labels: int(float(value)) for labels, value in lines})

    def calls(self) -> Counter[str]:
        """Requests to the API server so far, by verb and resource."""
        found: Counter[str] = Counter()
        for labels, count in self.figures("ytrain_operator_api_calls_total").items():
            named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            found[f"{named['verb']} {named['resource']}"] += count
        return found

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._held.close()


def seconds_of(pid: int) -> float:
    """Processor time of a process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Machine:
    """Who uses the machine: each program of the benchmark, and everybody else."""

    def __init__(self) -> None:
        self._began, self._busy, self._ours = time.monotonic(), _busy(), _ours()

    def lines(self) -> list[str]:
        """What each took since this was made."""
        ours = _ours() - self._ours
        took = time.monotonic() - self._began
        others = max(0.0, _busy() - self._busy - ours.total())
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in ours.most_common(7))
        return [
            f"processor time of each program, s             {parts}",
            f"other processes of the machine, meanwhile     {others / took:.1f} of {os.cpu_count()} cores",
        ]


def _busy() -> float:
    """Processor time of everything since the machine was started, by /proc/stat: user, nice, system, irq, softirq."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return sum(fields[i] for i in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


def _ours() -> Counter[str]:
    """Processor time of this process and all that came from it, by program."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(path.parent.name)] = int(rest.split()[1])
        names[int(path.parent.name)] = name.partition("(")[2]
    family = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    used: Counter[str] = Counter()
    for pid in family:
        used["submission" if pid == os.getpid() else names[pid]] += seconds_of(pid)
    return used


class Jobs:
    """Jobs of one namespace, made and counted."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    async def submit(self, count: int, prefix: str = "job", status: dict[str, Any] | None = None) -> None:
        """Create jobs; with a status, as if an operator had written it."""
        gate = asyncio.Semaphore(AT_ONCE)
        api, where = self.namespace.api, self.namespace.name

        async def one(index: int) -> None:
            async with gate:
                body = job_object(name=f"{prefix}-{index}")
                body["metadata"] = {"name": body["metadata"]["name"], "namespace": where}
                made = await api.create(body)
                if status is not None:
                    await api.replace_status(made, status)

        await asyncio.gather(*map(one, range(count)))

    async def phases(self) -> Counter[str]:
        """Jobs by phase, as the API server has them. Expensive for it: not to be asked again and again."""
        found: Counter[str] = Counter()
        async for items, _ in self.namespace.api.pages("YTrainJob", namespace=self.namespace.name):
            found.update(job.get("status", {}).get("phase", "none") for job in items)
        return found

    async def pods(self) -> int:
        """How many pods there are, by a list of one that says how many are left."""
        path = f"/api/v1/namespaces/{self.namespace.name}/pods"
        page = await self.namespace.api._request("get", "Pod", path, limit=1)
        return len(page["items"]) + page["metadata"].get("remainingItemCount", 0)

    async def until_pods(self, count: int) -> float:
        """Wait for that many pods; returns when they were there."""
        while await self.pods() != count:
            await asyncio.sleep(POLL)
        return time.monotonic()

    async def until_phase(self, operator: Process, phase: str, count: int) -> float:
        """Wait until so many jobs are in a phase by their statuses; returns when they were.

        The list of jobs is asked for only once the operator's own figures say so: it is expensive. They count a job
        without a status as Pending.
        """
        while True:
            if operator.figures("ytrain_jobs")[f'phase="{phase}"'] == count:
                asked = time.monotonic()
                if (await self.phases())[phase] == count:
                    return asked
            await asyncio.sleep(POLL)


@asynccontextmanager
async def stage(scheduler: bool = True) -> AsyncIterator[tuple[Namespace, str]]:
    """A namespace with volumes in a cluster of our own, and its kubeconfig; launchers answer that they train."""
    with api_cluster(say, nodes=NODES, scheduler=scheduler) as kubectl:
        kubeconfig = with_token(kubectl)
        await install_crd(kubeconfig)
        connection = await connect(kubeconfig)
        async with connection, launchers():
            namespace = Namespace(connection, "bench")
            await namespace.core.create_namespace({"metadata": {"name": namespace.name}})
            for claim in CLAIMS:
                await namespace.make_volume(claim)
            yield namespace, kubeconfig


def with_token(kubectl: Kubectl) -> str:
    """A kubeconfig of a service account that may do everything.

    Like the operator in a pod it brings a token, which the API server remembers. A client's certificate is verified
    with every request, which took a twelfth of the API server's time.
    """
    name = "bench"
    kubectl("create", "serviceaccount", name)
    kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", f"--serviceaccount=default:{name}")
    settings = yaml.safe_load(kubectl.kubeconfig.read_text())
    settings["users"][0]["user"] = {"token": kubectl("create", "token", name).strip()}
    path = kubectl.kubeconfig.with_name("token.kubeconfig")
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@asynccontextmanager
async def launchers() -> AsyncIterator[None]:
    """What answers at every simulated launcher's address: training, at step 10, for ever."""
    progress = {
        "step": 10,
        "totalSteps": 1000,
        "loss": 2.0,
        "tokensPerSecond": 1000,
        "updatedAt": "2026-01-01T00:00:00Z",
    }
    told = {"job": "job", "state": "Running", "activity": "training", "generation": 1, "restarts": 0}
    answer = json.dumps({**told, "workers": {"desired": 2, "ready": 2}, "progress": progress})

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/progress", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", PORT).start()
    try:
        yield
    finally:
        await runner.cleanup()
