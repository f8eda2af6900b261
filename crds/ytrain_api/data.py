"""`spec.data`: the records to learn from and how they become tokens."""

from typing import Annotated, Literal

from pydantic import Field

from ytrain_api.base import Block, DataUri, FreeForm, ListType, Rule, Text

RecordFormat = Literal["auto", "alpaca", "messages", "promptResponse", "questionAnswer", "history", "text"]
Overlong = Literal["skip", "truncate", "split"]


class DataSource(Block):
    """A file, a folder or a glob of records (.json .jsonl .csv .tsv .txt .md, also as .gz or .zst, and .parquet)."""

    source: DataUri = Field(
        description="Where the records lie: configmap://name/key, pvc://claim/path, s3://bucket/prefix, "
        "hf://datasets/owner/name "
        "or file:///path (file://./path is relative to the job file); a path may be a folder or a glob."
    )
    format: RecordFormat = Field(
        default="auto",
        description="Shape of a record. auto looks at the keys of every record: alpaca (instruction, input, output), "
        "messages or conversations, prompt and response, question and answer, history, or text; "
        "docs/data.md lists their other keys. A format that is named takes its keys and leaves out the others.",
    )
    repeat: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Times that each record is seen in one epoch, which weighs the sources. With 0.25 an epoch sees a "
        "quarter of the records, the next epoch the next quarter.",
    )


class Data(Block):
    """The training and validation records."""

    train: Annotated[list[DataSource], ListType("atomic")] = Field(
        min_length=1,
        max_length=64,
        description="Sources of the training records (the prompts of rl, the records that corpus scores).",
    )
    validation: Annotated[list[DataSource], ListType("atomic")] = Field(
        default_factory=list,
        max_length=64,
        description="Sources of records that are never trained on; their loss is reported before, during and "
        "after training.",
    )
    system_prompt: Text | None = Field(
        default=None,
        description="System message of records that carry none; it never replaces a record's own. Absent: no "
        "message is added.",
    )
    chat_template: Text | None = Field(
        default=None,
        description="Jinja text, or a source such as configmap://name/key, that replaces the tokenizer's chat "
        "template. "
        "Absent: the tokenizer's own.",
    )
    chat_template_args: FreeForm = Field(
        default_factory=dict, description="Values handed to the chat template, such as {enable_thinking: false}."
    )
    max_tokens: int = Field(
        default=4096, ge=8, le=10_000_000, description="Longest sample, in tokens, prompt included."
    )
    overlong: Overlong | None = Field(
        default=None,
        description="What happens to a longer sample: skip drops it, truncate cuts its end, split makes several "
        "samples of it (plain text only), in which every token is learned once. Each is counted. Absent: split with "
        "cpt, else skip.",
    )
    packing: bool = Field(
        default=True,
        description="Put several samples into one row. Samples never see each other and the result is the same; "
        "it is faster.",
    )
    max_bad_fraction: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of unusable records, 0 to 1, above which the run fails instead of skipping them.",
    )

    rules = (
        Rule(
            "!has(self.systemPrompt) || !self.systemPrompt.matches('^(configmap|pvc|s3|hf|file)://[^ ]*$')",
            "systemPrompt is the message itself, and an address would be learned as its text; write the message here",
            ".systemPrompt",
        ),
    )
