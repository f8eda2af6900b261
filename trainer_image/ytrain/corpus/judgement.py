"""Brings what the analyses found together: scores, class, spans and reasons of each record; rank; what is left out."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from ytrain.corpus.anomalies import oddities, shape
from ytrain.corpus.classes import CLASSES, Spread, classify, smoothed, suspicious_spans
from ytrain.corpus.clusters import Clustering, cluster
from ytrain.corpus.duplicates import near_duplicates
from ytrain.corpus.records import Records, texts_of
from ytrain.corpus.scoring import ScoreFiles
from ytrain.data.dataset import Sample, TokenDataset
from ytrain_api.corpus import Corpus
from ytrain_api.errors import TrainingError

LEFT_OUT_LABEL, LEFT_OUT_DUPLICATE = "likely wrong label", "near-duplicate"
LEFT_OUT_UNSCORED = "without a finite score"
UNSCORED = (
    "the model gave no finite loss or entropy (NaN or infinite) for its answer, so it was not judged: read it, or "
    "score again with model.precision: float32"
)
MEANINGS = {
    "likelyWrongLabel": "the model was sure of another answer (high loss, low entropy)",
    "hard": "the model was unsure and wrong (high loss, high entropy)",
    "lucky": "the answer fits although the model was unsure (low loss, high entropy)",
    "overConfident": "the model knows the answer well (low loss, low entropy): little is learned from it",
    "normal": "none of these",
}


@dataclass(frozen=True)
class Judgement:
    """What was found of every record; arrays `[N]` in the order of the files, None where it was not asked for.

    A record with a loss or entropy that is not finite has no score (NaN), no class and no spans.
    """

    tokens_N: npt.NDArray[np.int64]
    loss_N: npt.NDArray[np.float64]
    entropy_N: npt.NDArray[np.float64]
    z_loss_N: npt.NDArray[np.float64]
    z_entropy_N: npt.NDArray[np.float64]
    class_N: npt.NDArray[np.int64] | None
    token_loss: Spread
    token_entropy: Spread
    token_classes: Mapping[str, int]
    """How many answer tokens of the corpus are of each class."""
    spans: Mapping[int, list[tuple[int, int]]]
    """Suspicious spans in answer tokens, by record."""
    clusters: Clustering | None
    first: Sequence[int] | None
    """The record that each one repeats, or itself."""
    odd: Mapping[int, list[str]]
    ranked: npt.NDArray[np.int64]
    """Records, the most suspicious first, those without a score last."""
    left_out: Mapping[int, str]
    """Why a record is not in cleaned.jsonl."""

    @property
    def divergence_N(self) -> npt.NDArray[np.float64]:
        """z(loss) - z(entropy): how surprised the model was where it was sure."""
        return self.z_loss_N - self.z_entropy_N

    @property
    def scored_N(self) -> npt.NDArray[np.bool_]:
        """Which records have a score."""
        return np.isfinite(self.loss_N)

    def is_scored(self, index: int) -> bool:
        """Whether a record has a score."""
        return math.isfinite(self.loss_N[index])

    def class_of(self, index: int) -> str | None:
        """The class of a record."""
        return CLASSES[self.class_N[index]] if self.class_N is not None and self.is_scored(index) else None

    def classes(self) -> dict[str, int]:
        """How many records are of each class."""
        if self.class_N is None:
            return {}
        return dict(
            zip(CLASSES, np.bincount(self.class_N[self.scored_N], minlength=len(CLASSES)).tolist(), strict=True)
        )


def judge(corpus: Corpus, dataset: TokenDataset, scores: ScoreFiles, records: Records) -> Judgement:
    """Judge every record by the stored scores.

    Raises:
        TrainingError: none of them is finite.
    """
    counts = records.per_record(dataset.supervised_counts.astype(np.int64))
    tokens = records.per_record(dataset.lengths.astype(np.int64))
    sums = np.array([(loss.sum(dtype=float), entropy.sum(dtype=float)) for loss, entropy in scores.sample_tokens()])
    scored = np.isfinite(records.per_record(sums.sum(axis=1)))
    if not scored.any():
        raise TrainingError(
            f"spec.model.source: the model gives none of the {len(records):,} records a finite loss; set "
            "model.precision: float32, or take another model"
        )
    means_2N = np.stack([records.per_record(column) / counts for column in sums.T])
    loss, entropy = np.where(scored, means_2N, np.nan)
    z_loss, z_entropy = Spread.of([loss]).z(loss), Spread.of([entropy]).z(entropy)
    token_loss = Spread.of(shard.loss_R for shard in scores.finished())
    token_entropy = Spread.of(shard.entropy_R for shard in scores.finished())

    settings, classes, token_classes = corpus.divergence, None, Counter[str]()
    spans: dict[int, list[tuple[int, int]]] = {}
    if settings is not None:
        classes = classify(z_loss, z_entropy, settings.threshold)
        sample_tokens = scores.sample_tokens()
        for index in range(len(records)):
            found = [next(sample_tokens) for _ in records.samples(index)]
            if not scored[index]:
                continue
            z_l = token_loss.z(np.concatenate([part for part, _ in found]))
            z_h = token_entropy.z(np.concatenate([part for _, part in found]))
            of_tokens = np.bincount(classify(z_l, z_h, settings.threshold), minlength=len(CLASSES))
            token_classes.update(dict(zip(CLASSES, of_tokens.tolist(), strict=True)))
            divergence = smoothed(z_l, settings.smoothing_tokens) - smoothed(z_h, settings.smoothing_tokens)
            if mine := suspicious_spans(divergence, settings.span_threshold):
                spans[index] = mine

    clusters = None
    if corpus.clusters is not None:
        hidden = _hidden(scores, records)
        hidden[~scored] = np.nan  # such a record belongs to no cluster
        clusters = cluster(hidden, min_size=corpus.clusters.min_size, dimensions=corpus.clusters.dimensions)
    first = None
    if corpus.duplicates is not None:
        texts = ("\n".join(texts_of(records[index])) for index in range(len(records)))
        first = near_duplicates(texts, corpus.duplicates.similarity)
    shapes = [shape(value, "\n".join(texts_of(value))) for value in (records[i] for i in range(len(records)))]
    wrong = classes == 0 if classes is not None else np.zeros(len(records), dtype=bool)
    return Judgement(
        tokens_N=tokens,
        loss_N=loss,
        entropy_N=entropy,
        z_loss_N=z_loss,
        z_entropy_N=z_entropy,
        class_N=classes,
        token_loss=token_loss,
        token_entropy=token_entropy,
        token_classes=dict(token_classes),
        spans=spans,
        clusters=clusters,
        first=first,
        odd=oddities(shapes, tokens),
        ranked=np.lexsort((np.arange(len(records)), -(z_loss - z_entropy), ~wrong, ~scored)),
        left_out=left_out(scored.tolist(), wrong.tolist(), first),
    )


def left_out(scored: Sequence[bool], wrong: Sequence[bool], first: Sequence[int] | None) -> dict[int, str]:
    """Why records are left out of the cleaned corpus: no score, a wrong label, or it repeats an earlier good one."""
    reasons = {index: LEFT_OUT_LABEL for index, is_wrong in enumerate(wrong) if is_wrong}
    reasons |= {index: LEFT_OUT_UNSCORED for index, is_scored in enumerate(scored) if not is_scored}
    kept: set[int] = set()
    for index, group in enumerate(first or ()):
        if index in reasons:
            continue
        if group in kept:
            reasons[index] = LEFT_OUT_DUPLICATE
        kept.add(group)
    return reasons


def answer(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The text of each answer token of a record."""
    ids = [int(token) for sample in samples for token in sample.input_ids[sample.supervised]]
    return [decoded([token], tokenizer) for token in ids]


def decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> str:
    """The text of one sequence of tokens."""
    return str(tokenizer.decode(list(ids)))


def entry(
    judgement: Judgement, index: int, records: Records, dataset: TokenDataset, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """The line of scored.jsonl about a record."""
    spans = judgement.spans.get(index, [])
    samples = [dataset[sample] for sample in records.samples(index)] if spans else []
    ids = np.concatenate([sample.input_ids[sample.supervised] for sample in samples]) if spans else np.empty(0, int)
    words = [decoded(ids[begin:end].tolist(), tokenizer) for begin, end in spans]
    source, line = records.places[index]
    first = judgement.first[index] if judgement.first is not None else index
    return {
        "source": source,
        "line": line,
        "class": judgement.class_of(index),
        "scores": {
            "loss": _rounded(judgement.loss_N[index]),
            "entropy": _rounded(judgement.entropy_N[index]),
            "zLoss": _rounded(judgement.z_loss_N[index]),
            "zEntropy": _rounded(judgement.z_entropy_N[index]),
            "divergence": _rounded(judgement.divergence_N[index]),
            "tokens": int(judgement.tokens_N[index]),
        },
        "spans": [{"begin": begin, "end": end, "text": text} for (begin, end), text in zip(spans, words, strict=True)],
        "cluster": int(judgement.clusters.label_N[index]) if judgement.clusters is not None else None,
        "duplicateOf": dict(zip(("source", "line"), records.places[first], strict=True)) if first != index else None,
        "reasons": reasons(judgement, index, words, records),
        "leftOut": judgement.left_out.get(index),
        "record": records[index],
    }


def reasons(judgement: Judgement, index: int, spans: Sequence[str], records: Records) -> list[str]:
    """Why a record deserves a look, in words."""
    found = [] if judgement.is_scored(index) else [UNSCORED]
    name = judgement.class_of(index)
    if name not in (None, "normal"):
        found.append(MEANINGS[name])
    if spans:
        found.append("surprising where the model was sure: " + ", ".join(repr(span) for span in spans[:5]))
    if judgement.first is not None and judgement.first[index] != index:
        source, line = records.places[judgement.first[index]]
        found.append(f"nearly repeats {source}:{line}")
    return found + list(judgement.odd.get(index, ()))


def _hidden(scores: ScoreFiles, records: Records) -> npt.NDArray[np.float16]:
    """The mean hidden state of each record's first sample `[N, D]`."""
    firsts = np.array(records.firsts[:-1])
    parts = []
    for number, shard in enumerate(scores.finished()):
        indices = scores.indices(number)
        chosen = firsts[(firsts >= indices.start) & (firsts < indices.stop)] - indices.start
        parts.append(shard.hidden_SD[chosen])
    return np.concatenate(parts)


def _rounded(value: float) -> float | None:
    """JSON has no number for what is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
