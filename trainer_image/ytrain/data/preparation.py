"""Makes the data set of a run: each source tokenised once, cached, and judged against what may be unusable.

To be called in one process, before any process group exists; others open the same cache with `TokenDataset`.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ytrain.data.accounting import DataReport, total
from ytrain.data.cache import SKIPPED, TOKENS, EntryWriter, cache_key, claimed, combined_digest, file_digest, load_entry
from ytrain.data.dataset import Sample, TokenDataset
from ytrain.data.reading import read_records
from ytrain.data.tokenising import Tokeniser, TokenSettings
from ytrain_api.errors import DataError


@dataclass(frozen=True)
class DataSource:
    """One entry of `data.train` or `data.validation`, with its files at hand."""

    files: tuple[tuple[str, Path], ...]
    """Each file's name in messages, and where it lies."""
    format: str = "auto"
    repeat: int = 1
    """How often an epoch sees each record."""


@dataclass(frozen=True)
class PreparedData:
    """A data set and the account of what went into it."""

    dataset: TokenDataset
    report: DataReport
    parts: tuple[tuple[Path, int], ...]
    """What another process gives to `TokenDataset`."""


def prepare(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    settings: TokenSettings,
    cache: Path,
    *,
    max_bad_fraction: float = 0.01,
    where: str = "data.train",
    skipped: Path | None = None,
) -> PreparedData:
    """Tokenises the sources, or finds them tokenised in the cache.

    Args:
        cache: folder of tokenised sources; shared by any number of runs.
        max_bad_fraction: more unusable records than this, of all that were read, are an error.
        where: the field of the job that messages name.
        skipped: file that gets a JSON line for each record left out; written before anything is judged.

    Raises:
        DataError: too many bad records, no usable record, an empty or broken file.
        SpecError: the tokenizer lacks what the data need.
    """
    identity = _tokenizer_identity(tokenizer)
    reports, folders = [], []
    for source in sources:
        digests = [file_digest(path) for _, path in source.files]
        names = [name for name, _ in source.files]
        folder = cache / cache_key([identity, asdict(settings), source.format, names, digests])
        report = load_entry(folder)
        if report is None:
            with claimed(folder):
                report = load_entry(folder) or _tokenise(source, tokenizer, settings, folder, combined_digest(digests))
        reports.append((report, source.repeat))
        folders.append(folder)
    report = total(reports, combined_digest(part.digest for part, _ in reports))
    if skipped is not None:
        _write_skipped(folders, skipped)
    _judge(report, max_bad_fraction, where, settings)
    parts = tuple((folder / TOKENS, repeat) for folder, (_, repeat) in zip(folders, reports, strict=True))
    return PreparedData(TokenDataset(parts), report, parts)


def _tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else repr(tokenizer)
    return cache_key(
        [vocabulary, tokenizer.chat_template, {k: str(v) for k, v in tokenizer.special_tokens_map.items()}]
    )


def _tokenise(
    source: DataSource, tokenizer: PreTrainedTokenizerBase, settings: TokenSettings, folder: Path, digest: str
) -> DataReport:
    report = DataReport(digest=digest)
    with EntryWriter(folder) as entry:
        tokeniser = Tokeniser(tokenizer, settings, source.format, report, entry.log)

        def samples() -> Iterator[Sample]:
            for name, path in source.files:
                before = report.read
                yield from tokeniser.samples(read_records(path, name), name)
                if report.read == before:
                    raise DataError(f"{name}: the file holds no record. Remove it from the data, or fill it.")

        entry.write(samples(), [name for name, _ in source.files])
        entry.finish(report)
    return report


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
