"""How fast the operator is: `python benchmarks/operator/throughput.py [--jobs 200] [--scheduler]`.

Submits jobs with a launcher and two workers each, and prints how long it took until every pod was there and every
status said so, and what the operator's process needed. API server, controllers, simulated nodes, the submitting process
and the operator share the machine. Without a scheduler pods stay pending, and so do their jobs; with one, they run on
the simulated nodes and jobs are Running. What this machine allows at best, a bare client shows: it makes as many jobs,
their children, a status and an event each, with the operator's client and manifests, and watches and decides nothing.
"""

import argparse
import asyncio
import time
from datetime import UTC, datetime

from stage import AT_ONCE, POLL, Jobs, Machine, Process, enter_namespace, job_object, stage

from ytrain_operator.manifests.event import event_manifest
from ytrain_operator.observed import observed_job
from ytrain_operator.planner.decide import decide
from ytrain_operator.settings import Settings

SETTLED = 5.0
"""Seconds without other work before the submission."""


async def bare(jobs: Jobs, count: int) -> float:
    """Make jobs and what they own, and nothing else; returns when the last was made."""
    gate = asyncio.Semaphore(AT_ONCE)
    api, where = jobs.namespace.api, jobs.namespace.name
    settings = Settings.model_validate({"namespace": where, "namespaces": [where]})

    async def one(index: int) -> None:
        async with gate:
            name = f"bare-{index}"
            made = await api.create(job_object(name=name) | {"metadata": {"name": name, "namespace": where}})
            observed = observed_job(made, datetime.now(UTC), ())
            plan = decide(observed, settings, b"k" * 32)
            for manifest in plan.surroundings:
                await api.make(manifest)
            await asyncio.gather(*map(api.make, plan.pods))
            assert plan.status is not None
            await api.replace_status(made, plan.status.model_dump(mode="json", by_alias=True, exclude_none=True))
            for event in plan.events:
                await api.create(event_manifest(observed, event))

    await asyncio.gather(*map(one, range(count)))
    return time.monotonic()


async def measure(count: int, scheduler: bool) -> None:
    phase = "Running" if scheduler else "Pending"
    async with stage(scheduler) as (namespace, kubeconfig):
        jobs = Jobs(namespace)
        operator = Process(kubeconfig, namespace.name)
        try:
            await jobs.submit(1, "first")
            await jobs.until_phase(operator, phase, 1)
            await asyncio.sleep(SETTLED)
            called = operator.calls()
            machine, before, began = Machine(), operator.seconds(), time.monotonic()
            submission = asyncio.create_task(jobs.submit(count))
            made = await jobs.until_pods(3 * (count + 1)) - began
            await submission
            told = await jobs.until_phase(operator, phase, count + 1) - began
            while operator.calls()["post events"] < called["post events"] + count:
                await asyncio.sleep(POLL)
            used = operator.seconds() - before
            called = operator.calls() - called
            who = machine.lines()
        finally:
            operator.end()
        await asyncio.sleep(SETTLED)
        began = time.monotonic()
        alone = await bare(jobs, count) - began
    print(f"jobs, each with 3 pods and 3 other children   {count}, {phase} at the end")
    print(f"first submit to all pods made                 {made:.1f} s   ({count / made:.1f} jobs/s)")
    print(f"first submit to all statuses right            {told:.1f} s   ({count / told:.1f} jobs/s)")
    print(
        f"the same writes by a bare client              {alone:.1f} s   ({told / alone:.2f} times that by the operator)"
    )
    print(f"operator: processor time, events included     {used:.1f} s   ({1000 * used / count:.0f} ms a job)")
    calls = ", ".join(f"{what} {times / count:.1f}" for what, times in called.most_common())
    print(f"operator: requests a job                      {called.total() / count:.1f}: {calls}")
    print(*who, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--scheduler", action="store_true", help="pods are scheduled, and run")
    given = parser.parse_args()
    enter_namespace()
    asyncio.run(measure(given.jobs, given.scheduler))
