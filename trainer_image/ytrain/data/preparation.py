"""Makes the data set of a run: each source tokenised once, cached, and judged against what may be unusable.

To be called in one process, before any process group exists; others open the same cache with `TokenDataset`.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ytrain.data.accounting import DataReport, total
from ytrain.data.cache import SKIPPED, TOKENS, EntryWriter, cache_key, claimed, combined_digest, file_digest, load_entry
from ytrain.data.dataset import Sample, TokenDataset
from ytrain.data.formats import recognise
from ytrain.data.opening import unreadable
from ytrain.data.pace import Pace
from ytrain.data.reading import DataFile, RawRecord, columns, read_records
from ytrain.data.records import Unusable
from ytrain.data.tokenising import Tokeniser, TokenSettings, vocabulary
from ytrain.data.workers import encoding
from ytrain_api.errors import DataError

if TYPE_CHECKING:
    # Not wanted in the processes that encode texts: it takes seconds and much memory to import.
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class DataSource:
    """One entry of `data.train` or `data.validation`, with its files at hand."""

    files: tuple[tuple[str, Path], ...]
    """Each file's name in messages, and where it lies."""
    format: str = "auto"
    repeat: float = 1.0
    """How often an epoch sees each record; of a fraction, others in every epoch."""


@dataclass(frozen=True)
class PreparedData:
    """A data set and the account of what went into it."""

    dataset: TokenDataset
    report: DataReport
    parts: tuple[tuple[Path, float], ...]
    """What another process gives to `TokenDataset`."""


def prepare(
    sources: Sequence[DataSource],
    tokenizer: "PreTrainedTokenizerBase",
    settings: TokenSettings,
    cache: Path,
    *,
    max_bad_fraction: float = 0.01,
    where: str = "data.train",
    skipped: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> PreparedData:
    """Tokenises the sources, or finds them tokenised in the cache.

    Args:
        cache: folder of tokenised sources; shared by any number of runs.
        max_bad_fraction: more unusable records than this, of all that were read, are an error.
        where: the field of the job that messages name.
        skipped: file that gets a JSON line for each record left out; written before anything is judged.
        tell: is told now and then how far tokenising is.

    Raises:
        DataError: too many bad records, no usable record, an empty or broken file.
        SpecError: the tokenizer lacks what the data need.
    """
    identity = _tokenizer_identity(tokenizer)
    reports, folders = [], []
    for source in sources:
        digests = [_digest(name, path) for name, path in source.files]
        names = [name for name, _ in source.files]
        folder = cache / cache_key([identity, asdict(settings), source.format, names, digests])
        report = load_entry(folder)
        if report is None:
            with claimed(folder):
                report = load_entry(folder) or _tokenise(
                    source, tokenizer, settings, folder, combined_digest(digests), tell
                )
        reports.append((report, source.repeat))
        folders.append(folder)
    report = total(reports, combined_digest(part.digest for part, _ in reports))
    if skipped is not None:
        _write_skipped(folders, skipped)
    _judge(report, max_bad_fraction, where, settings)
    parts = tuple((folder / TOKENS, repeat) for folder, (_, repeat) in zip(folders, reports, strict=True))
    dataset = TokenDataset(parts)
    if not len(dataset.epoch_samples(seed=0, epoch=0)):
        raise DataError(f"{where}: with these values of repeat the first epoch sees no record at all. Raise one.")
    return PreparedData(dataset, report, parts)


def _digest(name: str, path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise unreadable(name, error) from error


def _tokenizer_identity(tokenizer: "PreTrainedTokenizerBase") -> str:
    return cache_key(
        [vocabulary(tokenizer), tokenizer.chat_template, {k: str(v) for k, v in tokenizer.special_tokens_map.items()}]
    )


def _tokenise(
    source: DataSource,
    tokenizer: "PreTrainedTokenizerBase",
    settings: TokenSettings,
    folder: Path,
    digest: str,
    tell: Callable[[str], None],
) -> DataReport:
    report, pace = DataReport(digest=digest), Pace(sum(path.stat().st_size for _, path in source.files), tell)
    with EntryWriter(folder) as entry, encoding(vocabulary(tokenizer), pace.size) as (submit, ahead):
        tokeniser = Tokeniser(tokenizer, settings, source.format, submit, ahead, report, entry.log)

        def records() -> Iterator[tuple[str, RawRecord]]:
            for name, path in source.files:
                before, file = report.read, DataFile(path, name, pace.done)
                _check_columns(file, source.format, settings)
                for record in read_records(file):
                    yield name, record
                if report.read == before:
                    raise DataError(f"{name}: the file holds no record. Remove it from the data, or fill it.")

        def samples() -> Iterator[Sample]:
            for sample in tokeniser.samples(records()):
                yield sample
                pace.tell(report.encoded_tokens)

        entry.write(samples(), [name for name, _ in source.files])
        entry.finish(report)
    return report


def _check_columns(file: DataFile, format: str, settings: TokenSettings) -> None:
    """Refuse a table of which no row can be used, before all of them are read."""
    names = columns(file)
    if names is None:
        return
    try:
        recognise(names, settings.kind, format)
    except Unusable as fault:
        wanted = "text (or output)" if settings.kind == "text" else "one of the formats in docs/data.md"
        raise DataError(
            f"{file.name}: {fault.reason}: its columns are {', '.join(names)}; wanted is {wanted}. Rename a column, or"
            " set the source's format."
        ) from fault


def _write_skipped(folders: Sequence[Path], target: Path) -> None:
    with target.open("wb") as out:
        for folder in folders:
            with (folder / SKIPPED).open("rb") as part:
                shutil.copyfileobj(part, out)


def _judge(report: DataReport, max_bad_fraction: float, where: str, settings: TokenSettings) -> None:
    listed = "".join(f"\n  {skipped}" for skipped in report.first_skipped)
    if report.bad_fraction > max_bad_fraction:
        raise DataError(
            f"{where}: {report.bad} of {report.read} records cannot be used ({report.bad_fraction:.1%}), more than"
            f" data.maxBadFraction ({max_bad_fraction:.1%}) allows. Correct them, or raise data.maxBadFraction to train"
            f" without them. The first of those left out:{listed}"
        )
    if report.used == 0:
        advice = (
            f"; {report.overlong} are longer than data.maxTokens ({settings.max_tokens})" if report.overlong else ""
        )
        raise DataError(
            f"{where}: none of the {report.read} records can be used{advice}. Correct them, or raise data.maxTokens, or"
            f" set data.overlong to truncate or split. The first of those left out:{listed}"
        )
