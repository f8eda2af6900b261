"""What to do about a failure, from the job's own numbers; a job's training is fixed, so changes go into a new job."""

from ytrain_api import YTrainJob
from ytrain_api.units import Quantity


def host_memory(job: YTrainJob) -> str:
    limit = job.spec.workers.resources.get("limits", {}).get("memory")
    have = f"workers.resources.limits.memory is {limit}" if limit else "the pod has no memory limit of its own"
    more = f"; give more, such as {_doubled(str(limit))}" if limit else "; its node ran out, so set one and a request"
    return f"A worker used more memory than it may: {have}{more}. {_smaller(job)}"


def launcher_memory(job: YTrainJob) -> str:
    limit = job.spec.launcher.resources.get("limits", {}).get("memory")
    if limit is None:
        return (
            "The launcher used more memory than it may; raise jobs.launcherResources.limits.memory in the operator's "
            "settings, or give a new job launcher.resources. The training itself has memory enough."
        )
    return (
        f"The launcher used more memory than it may: launcher.resources.limits.memory is {limit}; give a new job more, "
        f"such as {_doubled(str(limit))}. The training itself has memory enough."
    )


def device_memory(job: YTrainJob) -> str:
    return f"The device's memory is too small for a step. {_smaller(job)}"


def volume_full(job: YTrainJob) -> str:
    keep = job.spec.checkpoint.keep
    fewer = f", or keep fewer checkpoints (checkpoint.keep is {keep})" if keep > 1 else ""
    storage = job.spec.storage
    size = f" (storage.size is {storage.size})" if storage and storage.size else ""
    return f"The volume is full; enlarge it{size}, remove what is not needed{fewer}. The last whole checkpoint is kept."


def hang(job: YTrainJob) -> str:
    timeout = job.spec.policy.hang_timeout
    return (
        f"No step within policy.hangTimeout ({timeout}); stacks/ in the run's folder shows where each rank stood. "
        "One rank elsewhere than the others points to its node, all in one place to the code or the data."
    )


def not_placed(_: YTrainJob) -> str:
    return "Make room for the pods, or raise policy.pendingDeadline in a new job."


def diverged(job: YTrainJob) -> str:
    rate = job.spec.optimization.learning_rate
    lower = f" (now {rate:g}), such as {rate / 4:.1g}" if rate else " (now the method's own default)"
    return f"The loss grew without bound; lower optimization.learningRate{lower}."


def reward(_: YTrainJob) -> str:
    return "The reward function failed; the last lines show its own error. Try it with `ytrain check` first."


def data(job: YTrainJob) -> str:
    fraction = job.spec.data.max_bad_fraction
    return (
        "The message names file and line; mend the record, or raise data.maxBadFraction "
        f"(now {fraction:g}) if such records may be left out. `ytrain check` finds all of them."
    )


def spec(_: YTrainJob) -> str:
    return "The job asks for what cannot be done; mend it as the message says, and create it under a new name."


def evicted(job: YTrainJob) -> str:
    requests = job.spec.workers.resources.get("requests", {})
    missing = [name for name in ("memory", "ephemeral-storage") if name not in requests]
    advice = f"; give workers.resources.requests: {', '.join(missing)}" if missing else ""
    return f"The node was short of something and ended the pod{advice}."


def launcher_evicted(job: YTrainJob) -> str:
    requests = job.spec.launcher.resources.get("requests", {})
    given = [f"{name} {requests[name]}" for name in ("memory", "ephemeral-storage") if name in requests]
    now = f" (now {', '.join(given)})" if given else ""
    return (
        "The node was short of something and ended the launcher, not a worker; pods that use more than they request go "
        f"first. Raise launcher.resources.requests{now} in a new job, or jobs.launcherResources in the operator's "
        "settings."
    )


def lost_node(_: YTrainJob) -> str:
    return "The node went silent; the pod is made anew on another one. Nothing to do if there is one."


def communication(_: YTrainJob) -> str:
    return (
        "Ranks could not reach each other in time: look at the nodes' network, and whether a NetworkPolicy keeps the "
        "job's pods apart. NCCL_DEBUG=INFO in workers.template shows more."
    )


def lost_worker(_: YTrainJob) -> str:
    return "A worker went away while the others ran; its pod's events and its node tell why."


def log(_: YTrainJob) -> str:
    return "The last lines are from the log of the rank that failed first; `kubectl logs` of its pod has all of it."


def _smaller(job: YTrainJob) -> str:
    """Ways to need less memory that this job does not take yet."""
    spec, micro = job.spec, job.spec.optimization.micro_batch_tokens
    ways = []
    if micro is not None and micro > spec.data.max_tokens:
        ways.append(f"optimization.microBatchTokens below {micro} (at least data.maxTokens, {spec.data.max_tokens})")
    if not spec.model.gradient_checkpointing:
        ways.append("model.gradientCheckpointing: true")
    if spec.model.lora is None:
        ways.append("model.lora")
    ways.append(f"data.maxTokens below {spec.data.max_tokens}")
    return f"Or need less: {', '.join(ways)}."


def _doubled(limit: str) -> str:
    number = limit.rstrip("kMGTPEi")
    try:
        Quantity(limit)
        return f"{2 * float(number):g}{limit[len(number) :]}"
    except ValueError:
        return f"twice {limit}"
