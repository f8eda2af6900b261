"""What a job names, brought to this machine: the model's folder, its tokenizer, and the tokenised data sets."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from ytrain.data.chat import ChatRenderer
from ytrain.data.formats import normalise
from ytrain.data.preparation import DataSource, PreparedData, prepare
from ytrain.data.reading import SUFFIXES, DataFile, read_records
from ytrain.data.records import Chat, Unusable
from ytrain.data.tokenising import TokenSettings
from ytrain.evaluation.tasks import Question, Task
from ytrain.methods.chosen import chosen_method
from ytrain.models.folder import check_writable, full_disk_told
from ytrain.models.load import load_tokenizer, vocabulary_size
from ytrain.sources import DataFiles, Resolved, Sources
from ytrain_api import JobFile
from ytrain_api.errors import DataError, SpecError


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a run reads, checked and at hand."""

    sources: Sources
    model: Resolved
    adapter: Resolved | None
    others: Mapping[str, Resolved]
    """The models that are asked and not trained, by the field that names them."""
    tokenizer: PreTrainedTokenizerFast
    train: PreparedData
    validation: PreparedData | None
    retention: Mapping[str, PreparedData]
    tasks: Sequence[Task]
    ignored_files: Sequence[str]


def apply_secrets(job_file: JobFile) -> None:
    """Put the Secrets that the job names, and that lie beside it, into the environment; what is set already stays."""
    for name in job_file.job.spec.secrets:
        for key, value in job_file.secrets.get(name, {}).items():
            os.environ.setdefault(key, value.decode())


def load_inputs(
    job_file: JobFile,
    sources: Sources,
    *,
    cache: Path,
    skipped: Path | None,
    tell: Callable[[str], None] = lambda _: None,
) -> Inputs:
    """Resolve, read and tokenise.

    Args:
        cache: folder of tokenised data, shared by runs.
        skipped: file for the training records that are left out.
        tell: is told now and then how far tokenising is.

    Raises:
        SpecError: a source or the tokenizer is wrong, or the cache cannot be written.
        DataError: the data cannot be used.
        TrainingError: the cache's disk is full.
        TransientError: the Hub cannot be reached.
    """
    spec = job_file.job.spec
    check_writable(cache, field="--cache")
    method = chosen_method(spec)
    model = sources.resolve(spec.model.source)
    tokenizer = load_tokenizer(model.path)
    settings = TokenSettings(
        max_tokens=spec.data.max_tokens,
        kind=method.kind,
        overlong=spec.data.overlong or method.overlong,
        supervise=method.supervise,
        system_prompt=spec.data.system_prompt,
        chat_template=_template(spec.data.chat_template, sources),
        chat_template_args=spec.data.chat_template_args,
        vocabulary=vocabulary_size(model.path),
    )
    if settings.chat_template is not None:
        tokenizer.chat_template = settings.chat_template  # so that the output carries the one it was trained with
    any_kind = replace(settings, kind="any", overlong="split")  # retention: texts or chats, long ones in parts
    answered = replace(settings, kind="chat") if method.kind == "prompt" else settings
    ignored: list[str] = []

    def files(uri: str, format: str = "auto", repeat: float = 1.0) -> DataSource:
        found: DataFiles = sources.files(uri, SUFFIXES)
        ignored.extend(found.ignored)
        return DataSource(files=found.files, format=format, repeat=repeat)

    def data(
        entries: Sequence[DataSource], where: str, skipped: Path | None = None, settings: TokenSettings = settings
    ) -> PreparedData:
        when_full = f"{cache} cannot hold the tokenised data. Free space there, or name another folder with --cache"
        with full_disk_told(when_full):
            return prepare(
                entries,
                tokenizer,
                settings,
                cache,
                max_bad_fraction=spec.data.max_bad_fraction,
                where=where,
                skipped=skipped,
                tell=tell,
            )

    train, validation = (
        [files(entry.source, entry.format, entry.repeat) for entry in entries]
        for entries in (spec.data.train, spec.data.validation)
    )
    lora = spec.model.lora
    return Inputs(
        sources=sources,
        model=model,
        adapter=sources.resolve(lora.start_from) if lora and lora.start_from else None,
        others={other.field: sources.resolve(other.source) for other in method.others},
        tokenizer=tokenizer,
        train=data(train, "spec.data.train", skipped),
        validation=data(validation, "spec.data.validation", settings=answered) if validation else None,
        retention={
            entry.name: data([files(entry.source)], f"spec.evaluation.retention[{entry.name}]", settings=any_kind)
            for entry in spec.evaluation.retention
        },
        tasks=[
            Task(
                name=entry.name,
                questions=_questions(
                    files(entry.source),
                    ChatRenderer(tokenizer, None, spec.data.chat_template_args),
                    spec.data.system_prompt,
                    samples=entry.samples,
                    seed=spec.optimization.seed,
                ),
                max_new_tokens=entry.max_new_tokens,
            )
            for entry in spec.evaluation.tasks
        ],
        ignored_files=ignored,
    )


def _template(text: str | None, sources: Sources) -> str | None:
    """The template itself, where the job gives it by a source.

    Raises:
        SpecError: there is no such source, or it is no text file.
    """
    if text is None or "{" in text or "://" not in text:
        return text
    try:
        return sources.resolve(text).path.read_text(encoding="utf-8")
    except SpecError as error:
        raise SpecError(f"spec.data.chatTemplate: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"spec.data.chatTemplate: {text}: no text file ({error}); name a file of Jinja text, such as "
            "configmap://name/key"
        ) from error


def _questions(
    source: DataSource, renderer: ChatRenderer, system_prompt: str | None, *, samples: int, seed: int
) -> list[Question]:
    """The first `samples` of the shuffled records; the last assistant turn of each is the expected answer.

    Raises:
        DataError: a record that asks nothing: an evaluation must not shrink in silence.
    """
    questions = []
    for name, path in source.files:
        for raw in read_records(DataFile(path, name)):
            try:
                if raw.fault is not None:
                    raise Unusable("cannot be decoded", raw.fault)
                chat = normalise(raw.value, kind="chat", format=source.format, system_prompt=system_prompt)
                assert isinstance(chat, Chat)
                if chat.messages[-1]["role"] != "assistant":
                    raise Unusable("the last turn is not the assistant's")
                questions.append(
                    Question(
                        prompt=renderer.prompt(chat),
                        shown=chat.messages[-2]["content"],
                        expected=chat.messages[-1]["content"],
                    )
                )
            except Unusable as fault:
                raise DataError(
                    f"{name}:{raw.line}: {fault}; an evaluation task needs a question and its answer in each record"
                ) from fault
    if not questions:
        names = ", ".join(name for name, _ in source.files)
        raise DataError(f"{names}: no record in it; an evaluation task needs questions and their answers")
    order = np.random.default_rng(seed).permutation(len(questions))
    return [questions[i] for i in order[:samples]]
