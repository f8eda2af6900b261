"""How fast the operator is and what it takes: `python benchmarks/operator/throughput.py KUBECONFIG [--jobs 200]`.

Submits jobs with a launcher and two workers each to a cluster whose kubelets are simulated (kwok), and prints how long
it took until every pod was there and every status said so, and what the operator's process needed. The operator runs in
a process of its own with its defaults; no launcher answers it. API server and operator share the machine.
"""

import argparse
import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / folder) for folder in ("api", "unit/operator")]

from live import Namespace, connect  # noqa: E402

CLAIMS = ("models", "data", "work")
POLL = 0.2


class Process:
    """The operator, and what it has used."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        folder = Path(tempfile.mkdtemp())
        settings = folder / "settings.yaml"
        given = {"namespace": namespace, "namespaces": [namespace], "metricsPort": 0, "leaderElection": False}
        settings.write_text(yaml.safe_dump(given))
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
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


async def submit(namespace: Namespace, count: int) -> None:
    """Create jobs, 20 at a time."""
    gate = asyncio.Semaphore(20)

    async def one(index: int) -> None:
        async with gate:
            await namespace.create_job(name=f"job-{index}")

    await asyncio.gather(*map(one, range(count)))


async def phases(namespace: Namespace) -> Counter[str]:
    found: Counter[str] = Counter()
    async for items, _ in namespace.api.pages("YTrainJob", namespace=namespace.name):
        found.update(job.get("status", {}).get("phase", "none") for job in items)
    return found


async def count_pods(namespace: Namespace) -> int:
    count = 0
    async for items, _ in namespace.api.pages("Pod", namespace=namespace.name):
        count += len(items)
    return count


async def wait(what: Any) -> float:
    """Until it is true; returns when."""
    while not await what():
        await asyncio.sleep(POLL)
    return time.monotonic()


async def measure(kubeconfig: str, jobs: int, quiet: float) -> None:
    connection = await connect(kubeconfig)
    async with connection:
        namespace = Namespace(connection, f"bench-{os.getpid()}")
        await namespace.core.create_namespace({"metadata": {"name": namespace.name}})
        operator = Process(kubeconfig, namespace.name)
        try:
            for claim in CLAIMS:
                await namespace.make_volume(claim)
            await namespace.create_job(name="first")
            await wait(lambda: _is(count_pods(namespace), 3))  # the operator is there
            before, began = operator.seconds(), time.monotonic()
            submitted = asyncio.create_task(submit(namespace, jobs))
            made = await wait(lambda: _is(count_pods(namespace), 3 * (jobs + 1))) - began
            await submitted

            async def right() -> bool:
                return (await phases(namespace))["Starting"] == jobs + 1

            told = await wait(right) - began
            used = operator.seconds() - before
            before, began = operator.seconds(), time.monotonic()
            await asyncio.sleep(quiet)
            idle = (operator.seconds() - before) / (time.monotonic() - began)
            print(f"jobs, each with 3 pods and 4 other children   {jobs}")
            print(f"first submit to all pods made                 {made:.1f} s   ({jobs / made:.1f} jobs/s)")
            print(f"first submit to all statuses right            {told:.1f} s")
            print(f"operator: processor time for that             {used:.1f} s")
            print(f"operator: resident memory                     {operator.memory():.0f} MB")
            print(f"operator: share of a core while nothing moves {100 * idle:.1f} %")
        finally:
            operator.end()
            await namespace.core.delete_namespace(namespace.name)
            for claim in CLAIMS:
                await namespace.delete_volume(claim)


async def _is(counting: Any, wanted: int) -> bool:
    return bool(await counting == wanted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kubeconfig")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--quiet", type=float, default=30.0, help="seconds for which nothing moves")
    given = parser.parse_args()
    asyncio.run(measure(given.kubeconfig, given.jobs, given.quiet))
