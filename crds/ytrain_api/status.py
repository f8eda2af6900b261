"""`status`: what the operator reports. Nobody else writes it, and the trainer does not read it."""

from typing import Annotated, Literal

from pydantic import Field

from ytrain_api.base import Block, ListType

Phase = Literal["Pending", "Starting", "Running", "Saving", "Suspended", "Succeeded", "Failed"]


class Condition(Block):
    """One observation, in the form that Kubernetes tools read."""

    type: str = Field(description="Ready, Running, Suspended, Complete, Failed or Stalled.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: str = Field(description="One word in CamelCase for programs.", max_length=1024)
    message: str = Field(description="A sentence for people.", max_length=32768)
    last_transition_time: str = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int | None = Field(default=None, ge=0, description="metadata.generation that this is about.")


class WorkerCount(Block):
    """Worker pods asked for and present."""

    desired: int = Field(default=0, description="Worker pods that should run.")
    ready: int = Field(default=0, description="Worker pods that have joined the launcher.")


class Progress(Block):
    """How far training is."""

    step: int | None = Field(default=None, description="Optimizer steps done.")
    total_steps: int | None = Field(default=None, description="Optimizer steps planned.")
    epoch: float | None = Field(default=None, description="Epochs done, with fraction.")
    percent: int | None = Field(default=None, description="step / totalSteps in percent, 0 to 100.")
    summary: str | None = Field(
        default=None,
        description='Percent and steps, such as "40% (1200/3000)"; and what is done when it is not training.',
    )
    loss: float | None = Field(
        default=None,
        description="Latest training loss: unweighted mean in nats per token, 4 decimals; with rl the clipped "
        "surrogate, near 0.",
    )
    learning_rate: float | None = Field(default=None, description="Learning rate of the latest step.")
    tokens_per_second: int | None = Field(default=None, description="Tokens trained per second, over all workers.")
    eta: str | None = Field(default=None, description="Time left, such as 1h20m.")
    updated_at: str | None = Field(
        default=None, description="When these figures were read.", json_schema_extra={"format": "date-time"}
    )


class Change(Block):
    """One figure before training and now."""

    before: float | None = Field(default=None, description="Before training.")
    after: float | None = Field(default=None, description="At the latest evaluation.")


class NamedChange(Change):
    """One figure of a task or of a retention text, before training and now."""

    name: str = Field(description="Name of the task or of the retention text.")


class EvaluationStatus(Block):
    """Gain and forgetting."""

    step: int | None = Field(default=None, description="Step of the latest evaluation; 0 is the one before training.")
    validation: Change | None = Field(default=None, description="Validation loss, nats per token.")
    tasks: Annotated[list[NamedChange], ListType("map", ("name",))] = Field(
        default_factory=list, description="Accuracy of each task, 0 to 1."
    )
    retention: Annotated[list[NamedChange], ListType("map", ("name",))] = Field(
        default_factory=list, description="Loss of each retention text, nats per token."
    )
    kl_to_start: float | None = Field(default=None, description="KL(start || now) on training prompts, nats per token.")


class CheckpointStatus(Block):
    """The newest checkpoint."""

    step: int | None = Field(default=None, description="Its optimizer step.")
    path: str | None = Field(default=None, description="Its folder on the work volume.")
    complete: bool | None = Field(default=None, description="Whether every file is there with the right digest.")
    saved_at: str | None = Field(
        default=None, description="When it was saved.", json_schema_extra={"format": "date-time"}
    )
    digest: str | None = Field(default=None, description="Digest of its manifest.")


class Failure(Block):
    """Why the job failed, or last failed before it was restarted."""

    failure_class: str | None = Field(
        default=None, alias="class", description="Kind of failure, such as HostOutOfMemory, LostNode or DataError."
    )
    message: str | None = Field(default=None, description="What happened.")
    hint: str | None = Field(default=None, description="What to do, from the job's own numbers.")
    pod: str | None = Field(default=None, description="The pod that failed first.")
    rank: int | None = Field(default=None, description="The rank that failed first.")
    node: str | None = Field(default=None, description="The node of that pod.")
    exit_code: int | None = Field(default=None, description="Exit code of its container.")
    signal: int | None = Field(default=None, description="Signal that ended it.")
    last_lines: Annotated[list[str], ListType("atomic")] = Field(
        default_factory=list, description="Last lines of the log that tells most."
    )


class PodFailures(Block):
    """Pods that failed in a row without a new step in between; `policy.restarts` is their limit."""

    count: int = Field(default=0, ge=0, description="How many failed in a row.")
    step: int = Field(default=0, ge=0, description="The most optimizer steps that were done before the latest failed.")
    latest_at: str | None = Field(
        default=None, description="When the latest one failed.", json_schema_extra={"format": "date-time"}
    )


class DeviceSeconds(Block):
    """Device time by what it was spent on, in seconds times devices: each second that a worker holds counts once."""

    productive: int = Field(default=0, description="Training, evaluating and saving, from a start's first step on.")
    starting: int = Field(default=0, description="Ranks that load and prepare, before their first step.")
    lost: int = Field(
        default=0, description="Once productive, but no checkpoint holds it: steps that were made again, or never."
    )
    pending: int = Field(default=0, description="Held while no rank ran: other pods were missing, or a start waited.")


class Usage(Block):
    """What the job has cost."""

    device_seconds: DeviceSeconds = Field(default_factory=DeviceSeconds, description="Device time by use.")


class OutputStatus(Block):
    """The result, and what it was made from."""

    path: str | None = Field(
        default=None,
        description="Where the trained model lies: output.target if that is a claim or in a bucket, else a folder.",
    )
    digest: str | None = Field(default=None, description="Digest of its files.")
    base_revision: str | None = Field(default=None, description="Revision of the model that training started from.")
    data_digest: str | None = Field(default=None, description="Digest of the training data.")
    config_digest: str | None = Field(default=None, description="Digest of what in the spec determines the result.")


class DataStatus(Block):
    """Records read and what became of them."""

    read: int | None = Field(default=None, description="Records read.")
    used: int | None = Field(default=None, description="Records trained on.")
    skipped: int | None = Field(default=None, description="Records that could not be used.")
    truncated: int | None = Field(default=None, description="Records of which a part was cut off.")
    supervised_tokens: int | None = Field(default=None, description="Tokens that are learned in one epoch.")


class Timing(Block):
    """Where the time went, in seconds."""

    pending: int = Field(default=0, description="Waiting for pods.")
    starting: int = Field(default=0, description="Loading and preparing.")
    training: int = Field(default=0, description="Training and evaluating.")
    saving: int = Field(default=0, description="Writing checkpoints and the result.")


class Status(Block):
    """What the operator last saw."""

    observed_generation: int | None = Field(default=None, description="metadata.generation that this status is about.")
    conditions: Annotated[list[Condition], ListType("map", ("type",))] = Field(
        default_factory=list, description="Ready, Running, Suspended, Complete, Failed, Stalled."
    )
    phase: Phase | None = Field(default=None, description="One word for people; programs read conditions.")
    phase_since: str | None = Field(
        default=None, description="When the phase began.", json_schema_extra={"format": "date-time"}
    )
    method: str | None = Field(default=None, description="The method of the job: sft, cpt, rl or corpus.")
    start_time: str | None = Field(
        default=None, description="When the job was first started.", json_schema_extra={"format": "date-time"}
    )
    completion_time: str | None = Field(
        default=None, description="When the job ended.", json_schema_extra={"format": "date-time"}
    )
    workers: WorkerCount | None = Field(default=None, description="Worker pods asked for and present.")
    attempt: int | None = Field(default=None, description="Starts of the ranks so far, the first included.")
    restarts: int | None = Field(default=None, description="Starts of the ranks after the first.")
    progress: Progress | None = Field(default=None, description="How far training is.")
    evaluation: EvaluationStatus | None = Field(default=None, description="Gain and forgetting.")
    checkpoint: CheckpointStatus | None = Field(default=None, description="The newest checkpoint.")
    failure: Failure | None = Field(default=None, description="Why the job failed, or why it was last started again.")
    pod_failures: PodFailures | None = Field(default=None, description="Pods that failed without a new step.")
    usage: Usage | None = Field(default=None, description="What the job has cost.")
    output: OutputStatus | None = Field(default=None, description="The result.")
    data: DataStatus | None = Field(default=None, description="Records read and what became of them.")
    timing: Timing | None = Field(default=None, description="Where the time went.")
