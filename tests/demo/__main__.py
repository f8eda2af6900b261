"""`make demo`: from nothing to a model that two nodes of a real Kubernetes trained from examples/sftjob.yaml.

Brings the cluster of tests/cluster up, installs the chart, copies model and data onto a volume that both nodes see,
applies the example and shows the table while it moves. The cluster stays up, to be looked at.
"""

import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import product, two_nodes
from tests.cluster.failures import ClusterError
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.cluster.workloads import claim
from tests.image.builders import BuildError

ROOT = Path(__file__).resolve().parents[2]
JOB_FILE = ROOT / "examples/sftjob.yaml"
JOB, CLAIM, NAMESPACE, SHELL = "sums", "ytrain", "demo", "files"
PLAY = ROOT / ".quickstart"
LIMIT_SECONDS = 1800.0

ASK = """
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
model = AutoPeftModelForCausalLM.from_pretrained("/claims/ytrain/output/sums", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("/claims/ytrain/output/sums")
question = "State the final answer to the following arithmetic problem: 4 + 3 =\\nReply with the number only."
chat = [{"role": "user", "content": question}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
for model_name, switch in (("before", model.disable_adapter), ("after", torch.no_grad)):
    with switch():
        ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    print(f"{model_name:>7}: {tokenizer.decode(ids, skip_special_tokens=True)!r}")
"""


def main() -> int:
    """Everything, in order."""
    try:
        return demo()
    except (ClusterError, BuildError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1


def demo() -> int:
    """Returns the exit code: 0 if the job succeeded."""
    cluster = Kubectl(two_nodes.up(say))
    images = product.load_images(say)
    say("$ helm upgrade --install ytrain helm/ytrain --namespace ytrain-system --create-namespace --wait")
    product.install(cluster, images)
    kubectl = Kubectl(cluster.kubeconfig, NAMESPACE)
    if kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
        say(f"removing the namespace {NAMESPACE} of the demo before")
        cluster("delete", "namespace", NAMESPACE, seconds=LIMIT_SECONDS)
    prepare(kubectl, images["trainer"])
    say(f"$ kubectl apply -f {JOB_FILE.relative_to(ROOT)}\n$ kubectl get ytj -w")
    began = time.monotonic()
    kubectl("apply", "--filename", JOB_FILE)
    show_until_ended(kubectl)
    if phase(kubectl) != "Succeeded":
        say(kubectl("describe", "ytj", JOB))
        say(kubectl("logs", f"{JOB}-launcher"))
        return 1
    say(f"\nafter {time.monotonic() - began:.0f} s\n$ kubectl get ytj {JOB} -o yaml   (its status)")
    say(kubectl("get", "ytj", JOB, "--output=jsonpath={.status.conditions[?(@.type=='Ready')].message}"))
    say("\nWhat the model says to 4 + 3, loaded with plain peft in a pod:")
    say(kubectl("exec", SHELL, "--", "python", "-c", ASK, seconds=LIMIT_SECONDS).rstrip())
    report = PLAY / "demo/report.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(kubectl("exec", SHELL, "--", "sh", "-c", f"cat /claims/{CLAIM}/{JOB}-*/report.html"))
    say(f"\nThe page with all figures: {report.relative_to(ROOT)}")
    say("The cluster stays up:")
    say(f"  export KUBECONFIG={cluster.kubeconfig}\n  kubectl -n {NAMESPACE} describe ytj {JOB}\n  make cluster-down")
    return 0


def prepare(kubectl: Kubectl, image: str) -> None:
    """A namespace with the claim that the example names, filled with model and data."""
    say(f"copying model and data onto the volume {CLAIM}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    wait_for("the namespace's service account", lambda: "default" in kubectl("get", "serviceaccounts"))
    kubectl.apply(claim(CLAIM, "shared", "ReadWriteMany"), product.shell_pod(SHELL, image, CLAIM))
    kubectl("wait", "--for=condition=Ready", f"pod/{SHELL}", "--timeout=300s", seconds=360)
    product.copy_in(kubectl, SHELL, PLAY, ["models", "data"], f"/claims/{CLAIM}")


def show_until_ended(kubectl: Kubectl) -> None:
    """The table that a person would watch."""
    watching = subprocess.Popen(kubectl.command("get", "ytj", "--watch"))
    try:
        wait_for("the job's end", lambda: phase(kubectl) in ("Succeeded", "Failed"), seconds=LIMIT_SECONDS, every=1)
    finally:
        watching.terminate()
        watching.wait()


def phase(kubectl: Kubectl) -> str:
    """Of the job."""
    return kubectl("get", "ytj", JOB, "--output=jsonpath={.status.phase}")


def say(words: str) -> None:
    """Tell the person at once."""
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
