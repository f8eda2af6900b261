"""What the launcher and the workers' agents say to one another, and what the launcher tells everybody else.

The exchange is level-based: an agent reports what is, the launcher answers what should be. Repeating a report, or
asking another launcher after a restart, changes nothing.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ytrain_api.base import Block, FreeForm
from ytrain_api.status import (
    CheckpointStatus,
    DataStatus,
    EvaluationStatus,
    Failure,
    OutputStatus,
    Progress,
    Usage,
    WorkerCount,
)

PORT = 8750
"""The launcher's default port."""

Line = Annotated[str, StringConstraints(max_length=2000)]


class RankProgress(Block):
    """How far a rank says it is."""

    activity: str = Field(max_length=200, description="What it does now, such as training.")
    step: int = Field(default=0, ge=0, description="Optimizer steps done.")
    total_steps: int | None = Field(default=None, ge=0, description="Optimizer steps planned.")
    epoch: float | None = Field(default=None, description="Epochs done, with fraction.")
    loss: float | None = Field(
        default=None, description="Latest training loss, nats per token; with rl the clipped surrogate."
    )
    learning_rate: float | None = Field(default=None, description="Learning rate of the latest step.")
    tokens_per_second: float | None = Field(default=None, description="Of the latest step, over all ranks.")
    step_seconds: float | None = Field(default=None, ge=0, description="Median duration of the latest steps.")
    beat: int = Field(default=0, ge=0, description="Counts whatever the rank did; unchanged, it did nothing.")


class Facts(Block):
    """What a run has found so far. Rank 0 tells each as it learns it; what is not told is not known, or as before."""

    data: DataStatus | None = Field(default=None, description="Records read and what became of them.")
    evaluation: EvaluationStatus | None = Field(default=None, description="Gain and forgetting.")
    checkpoint: CheckpointStatus | None = Field(default=None, description="The newest complete checkpoint.")
    output: OutputStatus | None = Field(default=None, description="The result.")

    def told(self) -> dict[str, Block]:
        """Those that are known, by name."""
        return {name: fact for name in Facts.model_fields if (fact := getattr(self, name)) is not None}


class Spent(Block):
    """The launcher's account of device time, in seconds times devices; its agents keep it for the next launcher."""

    productive: float = Field(default=0.0, ge=0, description="Training, evaluating and saving.")
    starting: float = Field(default=0.0, ge=0, description="Loading and preparing.")
    lost: float = Field(default=0.0, ge=0, description="Once productive, but no checkpoint holds it.")
    pending: float = Field(default=0.0, ge=0, description="Held while no rank ran.")
    unsaved: float = Field(default=0.0, ge=0, description="Of productive: after the newest complete checkpoint.")
    saved_step: int = Field(default=0, ge=0, description="Step of that checkpoint; 0 before the first.")

    @property
    def total(self) -> float:
        """All of it."""
        return self.productive + self.starting + self.lost + self.pending


class RankEnd(Block):
    """How a rank's process ended."""

    rank: int = Field(ge=0, description="Rank in its generation.")
    exit_code: int = Field(description="Exit code; negative is the number of the signal that ended it.")
    done: bool = Field(default=False, description="Whether it said that the whole job is done.")
    kind: str | None = Field(default=None, max_length=200, description="Kind of failure that it told.")
    message: str | None = Field(default=None, max_length=8000, description="What it told of its failure.")
    last_lines: list[Line] = Field(default_factory=list, max_length=40, description="End of what it printed.")
    stack: str | None = Field(default=None, max_length=2000, description="Where it stood when it was found hanging.")


class Report(Block):
    """What an agent is and sees."""

    job: str = Field(min_length=1, max_length=200, description="Digest or uid of the job that it works for.")
    index: int = Field(ge=0, le=4095, description="Which of the job's workers it is.")
    incarnation: str = Field(min_length=1, max_length=64, description="Different for every start of the agent.")
    address: str = Field(min_length=1, max_length=253, description="Where its ranks can be reached.")
    port: int = Field(ge=1, le=65535, description="A port that is free there now.")
    slots: int = Field(ge=1, le=64, description="Ranks that it runs.")
    state: Literal["idle", "running", "ended"] = Field(description="Of its ranks.")
    generation: int = Field(ge=0, description="Which start of the ranks the state is about; 0 before the first.")
    ranks: int = Field(default=0, ge=0, description="Ranks of all workers in that generation.")
    ends: list[RankEnd] = Field(default_factory=list, max_length=64, description="Its ranks that ended.")
    stopping: bool = Field(default=False, description="Whether it was asked to stop, by a signal.")
    progress: list[RankProgress] = Field(default_factory=list, max_length=64, description="Of its ranks, by rank.")
    order: int = Field(default=0, ge=0, description="Number of the latest order that it has.")
    facts: Facts | None = Field(default=None, description="What its rank 0 has found; of the worker that runs it.")
    held: float = Field(default=0.0, ge=0, description="Seconds since its start, in which it held its devices.")
    counted: float = Field(default=0.0, ge=0, description="Of held: those that a launcher has taken into account.")
    spent: Spent | None = Field(default=None, description="The account that a launcher gave it last.")


class Ranks(Block):
    """What an agent needs to start its ranks."""

    first: int = Field(ge=0, description="Rank of its first process.")
    world_size: int = Field(ge=1, description="Ranks of all agents.")
    master_address: str = Field(description="Where rank 0 can be reached.")
    master_port: int = Field(ge=1, le=65535, description="Port on which rank 0 waits for the others.")


class Order(Block):
    """What an agent should do."""

    number: int = Field(ge=0, description="Rises with every change.")
    action: Literal["wait", "run", "stop", "leave"] = Field(
        description="wait: no rank may run. run: the generation's ranks run. stop: they are asked to save and end. "
        "leave: the job is over."
    )
    generation: int = Field(ge=0, description="The generation that the action is about.")
    ranks: Ranks | None = Field(default=None, description="With run.")
    stacks: bool = Field(default=False, description="With wait: write down where the ranks stand before ending them.")
    exit_code: int = Field(default=0, description="With leave: how the job ended.")
    reason: str = Field(default="", description="For people.")
    spent: Spent | None = Field(default=None, description="The account of device time, to be kept and told again.")


class LauncherStatus(Facts):
    """Answer of `/v1/progress`: how the job is, beside what its run has found."""

    job: str = Field(description="Name of the job.")
    state: Literal["Waiting", "Running", "Stopping", "Succeeded", "Preempted", "Failed"] = Field(
        description="Waiting: for workers, or before a restart."
    )
    message: str = Field(default="", description="What it waits for, or how it ended.")
    activity: str = Field(default="", description="What rank 0 does now, such as training or saving.")
    generation: int = Field(description="Starts of the ranks so far.")
    restarts: int = Field(description="Starts of the ranks after the first.")
    workers: WorkerCount = Field(description="Agents asked for and present.")
    progress: Progress | None = Field(default=None, description="How far training is.")
    failure: Failure | None = Field(default=None, description="The latest failure.")
    usage: Usage | None = Field(default=None, description="What the job has cost so far.")
    exit_code: int | None = Field(default=None, description="How the job ended.")


class LastWord(Block):
    """What the launcher leaves as its container's termination message: how the job ended, decided once."""

    exit_code: int = Field(description="0: done. 143: stopped, to be gone on with. Else one of ytrain_api.errors.")
    message: str = Field(description="For people.")
    status: LauncherStatus | None = Field(default=None, description="The final figures.")


class SharedJob(Block):
    """Answer of `/v1/job`: what a worker on another machine trains. Secrets do not travel."""

    job: FreeForm = Field(description="The YTrainJob.")
    config_maps: dict[str, dict[str, str]] = Field(default_factory=dict, description="name -> key -> base64.")
