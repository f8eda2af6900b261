"""What in a job is allowed and probably not meant, each in a sentence that says what to change."""

from collections.abc import Sequence
from operator import attrgetter

from pydantic.alias_generators import to_camel
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ytrain.data import DataReport, Sample, TokenDataset
from ytrain.methods.forecast import Course, Memory
from ytrain.report.series import byte_size
from ytrain_api import JobFile
from ytrain_api.job import Spec
from ytrain_api.model import Model
from ytrain_api.without_effect import without_effect

FEW_STEPS = 10
"""With fewer, warm-up and decay leave almost no step at the peak learning rate."""

FEW_RECORDS = 100
"""Of fewer, chance alone moves mean and deviation by about a tenth of a deviation."""

ENOUGH_STEPS = 50
"""What the suggested batch aims at."""


def fields_without_effect(spec: Spec) -> str | None:
    """Fields that were given to no effect. Defaults do not count: in a job from a cluster each is written out."""
    why, fields = without_effect(spec)
    default = Spec(model=Model(source=spec.model.source), data=spec.data)
    given = [field for field in fields if attrgetter(field)(spec) not in (None, attrgetter(field)(default))]
    if not given:
        return None
    names = ", ".join(".".join(map(to_camel, field.split("."))) for field in given)
    return f"{names}: ignored, {why}; remove {'it' if len(given) == 1 else 'them'}"


def absent_secrets(job_file: JobFile) -> str | None:
    """Secrets that a cluster would have, and that do not lie beside the job on this machine."""
    absent = [name for name in job_file.job.spec.secrets if name not in job_file.secrets]
    if not absent:
        return None
    one = len(absent) == 1
    return (
        f"spec.secrets: {', '.join(absent)} {'is' if one else 'are'} not in the job file; "
        f"what {'it holds' if one else 'they hold'} is taken from the environment of this command"
    )


def few_steps(spec: Spec, report: DataReport, course: Course) -> str | None:
    """A run that is over before it has learned; the suggested batch is always below the present one."""
    if course.steps >= FEW_STEPS:
        return None
    optimization = spec.optimization
    start = f"{course.steps} {'step' if course.steps == 1 else 'steps'} in all"
    if course.epochs < optimization.epochs:
        return f"{start}, by optimization.maxSteps: enough to try the job out, not to learn"
    longer = f"raise optimization.epochs (now {optimization.epochs})"
    if course.samples_per_step is None:
        return f"{start}: {longer}, or give more data"
    if spec.rl is not None:
        return f"{start}: lower rl.rollout.promptsPerStep (now {spec.rl.rollout.prompts_per_step}), or {longer}"
    field, now, amount = "batchTokens", optimization.batch_tokens, report.tokens
    if optimization.batch_sequences is not None:
        field, now, amount = "batchSequences", optimization.batch_sequences, report.samples
    assert now is not None
    suggested = power_of_two_below(amount * optimization.epochs // ENOUGH_STEPS)
    if suggested >= now or course.samples_per_step <= 1:
        return f"{start}: {longer}, or give more data"
    return f"{start}: lower optimization.{field} (now {now}), such as to {suggested}, or {longer}"


def power_of_two_below(number: int) -> int:
    """The largest power of two that is not above `number`; at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def too_much_memory(memory: Memory) -> str | None:
    """A job that does not fit, with the changes that help; all numbers are the estimate's."""
    if memory.fits:
        return None
    start = f"needs about {byte_size(memory.need.total)}, this machine has {byte_size(memory.available)}"
    fitting = [remedy for remedy in memory.remedies if remedy.bytes <= memory.available]
    if fitting:
        return f"{start}; fits with {' or with '.join(f'{r.change} ({byte_size(r.bytes)})' for r in fitting)}"
    if memory.remedies:
        best = memory.remedies[-1]
        return f"{start}; {best.change} would need {byte_size(best.bytes)}: take a smaller model or a larger machine"
    return f"{start}; take a smaller model or a larger machine"


def beyond_positions(config: PretrainedConfig, dataset: TokenDataset) -> str | None:
    """Samples longer than any sequence the model was made for."""
    longest, made_for = int(dataset.lengths.max()), getattr(config.get_text_config(), "max_position_embeddings", None)
    if made_for is None or longest <= made_for:
        return None
    return (
        f"the longest sample has {longest} tokens, the model was made for {made_for} (max_position_embeddings); "
        f"set data.maxTokens to {made_for} or below"
    )


def scored_once(report: DataReport, row_tokens: int) -> str:
    """What a corpus job will compute."""
    words = (
        f"every sample is scored once: {report.tokens:,} tokens, up to {row_tokens:,} at a time; "
        "the model is not changed"
    )
    if report.skipped:
        words += f". The {report.skipped:,} skipped records are not scored and will not be in cleaned.jsonl"
    return words


def no_reward(rewards: Sequence[float | str | None]) -> str | None:
    """A reward that gives none of the answers that were tried a number; a text says why it gave nothing."""
    reasons = [reward for reward in rewards if isinstance(reward, str)]
    if not rewards or len(reasons) < len(rewards):
        return None
    return (
        f"the reward gives nothing for any of the {len(rewards)} samples shown ({reasons[0]}); correct the "
        "reward or the records: a run ends when no answer gets one"
    )


def no_end(samples: Sequence[Sample], max_tokens: int, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Answers whose last learned token is a word like any other: a model learns from them to talk on.

    Samples of `max_tokens` may have been cut off, and say nothing.
    """
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    learned = [sample.input_ids[sample.supervised] for sample in samples if len(sample.input_ids) < max_tokens]
    ends = [int(tokens[-1]) for tokens in learned if len(tokens)]
    if not ends or any(end in marks for end in ends):
        return None
    return (
        "no answer shown ends with a special token: the chat template writes none there, and the model will not learn "
        "to stop; give a template that closes answers (data.chatTemplate)"
    )


def few_records(report: DataReport) -> str | None:
    """A corpus too small for z-scores, which compare each record with the rest."""
    if report.used >= FEW_RECORDS:
        return None
    return (
        f"{report.used} records: each is compared with the rest, which says little for fewer than {FEW_RECORDS}; "
        "give more data"
    )


def other_ranks(spec: Spec, processes: int) -> str | None:
    """A job for another number of ranks than train it here."""
    ranks = spec.workers.replicas * spec.workers.devices
    if ranks == processes:
        return None
    here = "one process does" if processes == 1 else f"{processes} processes do"
    return (
        f"the job asks for {ranks} {'rank' if ranks == 1 else 'ranks'} (workers.replicas {spec.workers.replicas}, "
        f"workers.devices {spec.workers.devices}); on this machine {here} the work of all. The global batch, and with "
        "it the result, stays the same"
    )
