"""From `kubectl apply` to the first optimizer step on real nodes: `benchmarks/operator/first_step.py [--runs 3]`.

Uses what `make demo` left: the two-node cluster, the chart, the images on both nodes, model and data on a claim. Every
run trains SmolLM2-135M with LoRA in two workers for three steps, without evaluation, and prints where the time went:
pods as a watch saw them change, the trainer's phases from the time stamps of worker 0's log. All on one host's clock.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.cluster import two_nodes  # noqa: E402
from tests.cluster.kubectl import Kubectl  # noqa: E402
from tests.cluster.waiting import wait_for  # noqa: E402
from tests.demo.__main__ import CLAIM, NAMESPACE  # noqa: E402

NAME = "first-step"
JOB = {
    "apiVersion": "ytrain.io/v1alpha1",
    "kind": "YTrainJob",
    "metadata": {"name": NAME},
    "spec": {
        "model": {"source": f"pvc://{CLAIM}/models/SmolLM2-135M-Instruct", "lora": {"rank": 16, "alpha": 32}},
        "data": {"train": [{"source": f"pvc://{CLAIM}/data/train.jsonl"}], "maxTokens": 512},
        "sft": {},
        "optimization": {"maxSteps": 3, "batchSequences": 8},
        "storage": {"claim": CLAIM},
        "workers": {"replicas": 2, "deviceResource": "none"},
        "policy": {"keepPods": "all"},
    },
}
WORKERS = (f"{NAME}-worker-0", f"{NAME}-worker-1")

PARTS = {
    "pods created": "admission, the operator's reconcile, every child applied",
    "pods scheduled": "the scheduler",
    "containers running": "volumes, sandbox, runc",
    "ranks started": "Python, imports (torch, transformers), agents joined the launcher",
    "data read": "tokenised, or found in the cache",
    "model loaded": "weights, LoRA",
    "ranks met": "process group",
    "first step": "optimizer set up, forward, backward, all-reduce",
}
LOG = {
    "ranks started": "reading and tokenising",
    "data read": "loading the model",
    "model loaded": "meeting the other ranks",
    "ranks met": r"setting up the optimizer|evaluating before|training \.\.\.",
    "first step": r"step 1/",
}
"""What worker 0 prints when a part is over."""


class PodWatch(threading.Thread):
    """Notes when both workers were first seen created, scheduled and running."""

    def __init__(self, kubectl: Kubectl) -> None:
        super().__init__(daemon=True)
        selector = f"--selector=ytrain.io/job={NAME}"
        self._process = subprocess.Popen(
            kubectl.command("get", "pods", selector, "--watch", "--output=json"), stdout=subprocess.PIPE, text=True
        )
        self.seen: dict[tuple[str, str], float] = {}

    def run(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text += line
            if line == "}\n":
                pod, _ = decoder.raw_decode(text)
                text = ""
                self._note(pod)

    def _note(self, pod: dict[str, Any]) -> None:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        facts = {
            "pods created": True,
            "pods scheduled": "nodeName" in pod["spec"],
            "containers running": status.get("phase") == "Running",
        }
        for part, true in facts.items():
            if true:
                self.seen.setdefault((name, part), time.time())

    def when(self, part: str) -> float:
        """When the later of the two workers was seen so."""
        return max(self.seen[worker, part] for worker in WORKERS)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def run(kubectl: Kubectl) -> dict[str, float]:
    """Seconds since the submission at which each part was over."""
    kubectl("delete", "ytj", NAME, "--ignore-not-found")
    gone = "--output=name"
    wait_for("the run before to be gone", lambda: not kubectl("get", "pods", f"--selector=ytrain.io/job={NAME}", gone))
    watch = PodWatch(kubectl)
    watch.start()
    try:
        began = time.time()
        kubectl("apply", "--filename=-", text=json.dumps(JOB))
        ended = ("Succeeded", "Failed")
        wait_for("the job's end", lambda: phase(kubectl) in ended, seconds=600)
        assert phase(kubectl) == "Succeeded", kubectl("describe", "ytj", NAME)
    finally:
        watch.end()
    log = kubectl("logs", WORKERS[0], "--timestamps").splitlines()
    moments = {part: watch.when(part) for part in ("pods created", "pods scheduled", "containers running")}
    moments |= {part: first(log, words) for part, words in LOG.items()}
    return {part: moment - began for part, moment in moments.items()}


def phase(kubectl: Kubectl) -> str:
    return kubectl("get", "ytj", NAME, "--output=jsonpath={.status.phase}")


def first(log: list[str], words: str) -> float:
    """The time stamp of the first line that says so."""
    line = next(line for line in log if re.search(words, line))
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", line.split()[0])).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    kubectl = Kubectl(two_nodes.kubeconfig_of(), NAMESPACE)
    results = [run(kubectl) for _ in range(runs)]
    print(f"\nmedians of {runs} runs, seconds\n{'part':20} {'took':>6} {'at':>6}")
    before = 0.0
    for part, what in PARTS.items():
        at = statistics.median(result[part] for result in results)
        print(f"{part:20} {at - before:6.1f} {at:6.1f}  {what}")
        before = at
    print("submit to first step, each run:", ", ".join(f"{result['first step']:.1f}" for result in results))


if __name__ == "__main__":
    main()
