"""The YTrainJob itself: its spec with the rules between blocks; what may change after creation is in change.py."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ytrain_api.base import NO_SECRET, Block, FreeForm, ListType, Name, Rule, Wording
from ytrain_api.change import RULES_OF_CHANGE
from ytrain_api.corpus import Corpus
from ytrain_api.cpt import Cpt
from ytrain_api.data import Data
from ytrain_api.evaluation import Checkpoint, Evaluation, Output
from ytrain_api.model import Model
from ytrain_api.optimization import Deepspeed, Optimization
from ytrain_api.rl import Rl
from ytrain_api.runtime import Launcher, ObjectName, Policy, Storage, Workers
from ytrain_api.sft import Sft
from ytrain_api.status import Status

API_VERSION = "ytrain.io/v1alpha1"
KIND = "YTrainJob"
Method = Literal["sft", "cpt", "rl", "corpus"]
Image = Annotated[
    str,
    StringConstraints(max_length=512, pattern=r"^\S+$"),
    Wording("an image reference without spaces, such as registry.example/ytrain-trainer:1.0"),
    NO_SECRET,
]

_METHODS: tuple[Method, ...] = ("sft", "cpt", "rl", "corpus")


class Spec(Block):
    """What is wanted. Exactly one of sft, cpt, rl, corpus chooses the method."""

    suspend: bool = Field(
        default=False, description="Stop with a checkpoint and free the devices; set it to false to go on from there."
    )
    model: Model = Field(description="The model that training starts from.")
    data: Data = Field(description="The records to learn from.")
    sft: Sft | None = Field(default=None, description="Instruction tuning: learns the answers of conversations.")
    cpt: Cpt | None = Field(default=None, description="Continued pre-training: learns every token of the texts.")
    rl: Rl | None = Field(default=None, description="Reinforcement learning: only a reward function is needed.")
    corpus: Corpus | None = Field(default=None, description="Scores the records instead of training on them.")
    optimization: Optimization = Field(default_factory=Optimization, description="How the weights move.")
    deepspeed: Deepspeed | None = Field(
        default=None,
        description="Settings of the DeepSpeed engine. Absent: plain PyTorch, every rank with all weights, "
        "their gradients and optimizer state.",
    )
    evaluation: Evaluation = Field(
        default_factory=Evaluation, description="What is measured besides the training loss."
    )
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="When the state of training is saved.")
    output: Output = Field(default_factory=Output, description="Where the trained model goes.")
    storage: Storage | None = Field(
        default=None,
        description="The work volume for checkpoints. Absent: a scratch volume that goes with the pod, for one "
        "worker only.",
    )
    image: Image | None = Field(
        default=None, description="The trainer's image. Absent: the one in the operator's settings."
    )
    secrets: Annotated[list[ObjectName], ListType("set")] = Field(
        default_factory=list,
        max_length=32,
        description="Secrets whose keys become environment variables, for the hub (HF_TOKEN) and buckets "
        "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION).",
    )
    launcher: Launcher = Field(default_factory=Launcher, description="The pod that coordinates the workers.")
    workers: Workers = Field(default_factory=Workers, description="The pods that train.")
    queue: Name | None = Field(default=None, description="Kueue LocalQueue that admits the pods. Absent: no queue.")
    policy: Policy = Field(default_factory=Policy, description="How faults, deadlines and finished pods are handled.")

    rules = (
        Rule(
            "[has(self.sft), has(self.cpt), has(self.rl), has(self.corpus)].filter(given, given).size() == 1",
            "give exactly one of sft, cpt, rl, corpus: it is the method of the job (sft: {} takes every default)",
        ),
        Rule(
            "!has(self.data.overlong) || self.data.overlong != 'split' || has(self.cpt) || has(self.corpus)",
            "split would make samples without their prompt; use skip or truncate here (split is for plain text, "
            "with cpt)",
            ".data.overlong",
        ),
        Rule(
            "!has(self.optimization.microBatchTokens) || self.optimization.microBatchTokens >= self.data.maxTokens",
            "one forward pass must hold the longest sample; raise microBatchTokens to data.maxTokens, or lower "
            "data.maxTokens",
            ".optimization.microBatchTokens",
        ),
        Rule(
            "!self.output.merge || has(self.model.lora)",
            "merge joins a LoRA adapter into its model, and model.lora is absent; remove merge, or add model.lora",
            ".output.merge",
        ),
        Rule(
            "self.workers.replicas <= 1 || has(self.storage)",
            "several workers need a volume that all can write (ReadWriteMany) for checkpoints; "
            "add storage: {claim: NAME} or {size: 100Gi}, or set workers.replicas: 1",
            ".workers.replicas",
        ),
        Rule(
            "self.workers.replicas <= 1 || !has(self.storage) || !has(self.storage.accessMode) || "
            "self.storage.accessMode == 'ReadWriteMany'",
            "several workers write to this volume; set accessMode: ReadWriteMany, or workers.replicas: 1",
            ".storage.accessMode",
        ),
        *RULES_OF_CHANGE,
    )

    @property
    def method(self) -> Method:
        """Which of the four methods the job uses."""
        return next(name for name in _METHODS if getattr(self, name) is not None)


class Metadata(Block):
    """Kubernetes' own object metadata; only the name is needed in a file."""

    name: str = Field(description="Name of the job, unique in its namespace; pods and folders are named after it.")
    namespace: Name | None = Field(default=None, description="Namespace of the job. Absent: the current one.")
    labels: dict[str, str] | None = Field(default=None, description="Labels.")
    annotations: dict[str, str] | None = Field(default=None, description="Annotations.")
    generate_name: str | None = Field(default=None, description="Used by the API server when it made the name.")
    uid: str | None = Field(default=None, description="Set by the API server.")
    resource_version: str | None = Field(default=None, description="Set by the API server.")
    generation: int | None = Field(default=None, description="Set by the API server; counts changes of the spec.")
    creation_timestamp: str | None = Field(default=None, description="Set by the API server.")
    deletion_timestamp: str | None = Field(default=None, description="Set by the API server.")
    deletion_grace_period_seconds: int | None = Field(default=None, description="Set by the API server.")
    finalizers: list[str] | None = Field(default=None, description="Set by other controllers.")
    owner_references: list[FreeForm] | None = Field(default=None, description="Objects that this job belongs to.")
    managed_fields: list[FreeForm] | None = Field(default=None, description="Set by the API server.")


class YTrainJob(Block):
    """Fine-tunes a language model: the same file runs on a laptop and on a cluster."""

    api_version: Literal["ytrain.io/v1alpha1"] = Field(description="ytrain.io/v1alpha1.")
    kind: Literal["YTrainJob"] = Field(description="YTrainJob.")
    metadata: Metadata = Field(description="Name, labels, annotations.")
    spec: Spec = Field(description="What is wanted; exactly one of sft, cpt, rl, corpus chooses the method of the job.")
    status: Status | None = Field(default=None, description="What the operator last saw.")

    rules = (
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$')",
            "the name becomes part of pod and service names: at most 50 lower-case letters, digits and hyphens, "
            "a letter first",
            ".metadata.name",
        ),
    )
