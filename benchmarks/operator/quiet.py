"""What the operator takes of a core while nothing changes: `python benchmarks/operator/quiet.py [--finished 5000]`.

Fills a namespace with finished jobs and jobs that train, then counts the operator's processor time while no job moves.
If it made requests meanwhile, its round of every `resyncSeconds`, in which all is listed and applied again, fell into
that time.
"""

import argparse
import asyncio
import time

from stage import Jobs, Machine, Process, enter_namespace, stage

FINISHED = {
    "observedGeneration": 1,
    "phase": "Succeeded",
    "phaseSince": "2026-01-01T00:00:00Z",
    "method": "sft",
    "startTime": "2026-01-01T00:00:00Z",
    "completionTime": "2026-01-01T00:00:00Z",
    "conditions": [
        {
            "type": kind,
            "status": "True" if kind in ("Ready", "Complete") else "False",
            "reason": "Succeeded",
            "message": "the model is written",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        for kind in ("Ready", "Running", "Suspended", "Complete", "Failed", "Stalled")
    ],
}
"""Status of a job that is done."""


async def measure(finished: int, live: int, quiet: float) -> None:
    async with stage() as (namespace, kubeconfig):
        jobs = Jobs(namespace)
        await jobs.submit(finished, "done", FINISHED)
        operator = Process(kubeconfig, namespace.name)
        try:
            await jobs.submit(live, "live")
            await jobs.until_phase(operator, "Running", live)
            # The first list comes 30 seconds after the start; this is after that.
            await asyncio.sleep(40)
            called = operator.calls()
            machine, before, began = Machine(), operator.seconds(), time.monotonic()
            await asyncio.sleep(quiet)
            idle = (operator.seconds() - before) / (time.monotonic() - began)
            called = operator.calls() - called
            memory, who = operator.memory(), machine.lines()
        finally:
            operator.end()
    print(f"finished jobs, and jobs that train            {finished}, {live}")
    print(f"operator: resident memory                     {memory:.0f} MB")
    print(f"operator: share of a core while nothing moves {100 * idle:.1f} %   (over {quiet:.0f} s)")
    print(f"operator: requests to the API server meanwhile {called.total()}")
    print(*who, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--finished", type=int, default=5000)
    parser.add_argument("--live", type=int, default=1000)
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds for which nothing moves")
    given = parser.parse_args()
    enter_namespace()
    asyncio.run(measure(given.finished, given.live, given.quiet))
