"""Writes `corpus.html`, one self-contained page on which a person reads the records that deserve a look.

Data go in as JSON without a `<`, and the page's script puts them on screen as text, never as HTML; the page's policy
lets that one script run and lets nothing be loaded.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import PreTrainedTokenizerFast

from ytrain.corpus.classes import CLASSES
from ytrain.corpus.judgement import MEANINGS, Judgement, answer, reasons
from ytrain.corpus.records import Records, texts_of
from ytrain.corpus.scoring import ScoreFiles
from ytrain.data.dataset import TokenDataset
from ytrain_api.corpus import Corpus

SAMPLE_BYTES = 6 << 20
"""Of the page, what the records shown token by token may take; with the rest it stays under 10 MB."""
SHOWN_CHARACTERS, SHOWN_TOKENS = 2000, 1500
MAP_POINTS, GRID, PAIRS, SHOWN_CLUSTERS = 3000, 40, 50, 100
TITLES = {
    "likelyWrongLabel": "likely wrong label",
    "hard": "hard",
    "lucky": "lucky",
    "overConfident": "over-confident",
    "normal": "normal",
}
Z_RANGE = 4.0
"""The distribution is drawn from -4 to 4 deviations; what lies beyond is counted at the edge."""


def write_page(
    path: Path,
    name: str,
    corpus: Corpus,
    summary: Mapping[str, Any],
    judgement: Judgement,
    records: Records,
    dataset: TokenDataset,
    scores: ScoreFiles,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write the page, whole or not at all."""
    data = {
        "classes": CLASSES if judgement.class_N is not None else [],
        "titles": TITLES,
        "threshold": corpus.divergence.threshold if corpus.divergence else None,
        "spanThreshold": corpus.divergence.span_threshold if corpus.divergence else None,
        "samples": _samples(corpus.examples, judgement, records, dataset, scores, tokenizer),
        "grid": _grid(judgement),
        "map": _map(judgement, records),
        "clusters": _clusters(judgement, records),
        "pairs": _pairs(judgement, records),
    }
    unfinished = path.with_suffix(".html.part")
    unfinished.write_text(render(name, summary, data), encoding="utf-8", errors="replace")
    unfinished.replace(path)


def render(name: str, summary: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("ytrain.corpus", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (files("ytrain.corpus") / "templates/corpus.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("corpus.html.j2").render(
        name=name,
        summary=summary,
        titles=TITLES,
        meanings=MEANINGS,
        threshold=data["threshold"],
        shown=len(data["samples"]),
        data=embedded(data),
        script=script,
        script_digest=f"sha256-{digest}",
        report_css=(files("ytrain.report") / "templates/page.css").read_text(encoding="utf-8"),
        page_css=(files("ytrain.corpus") / "templates/corpus.css").read_text(encoding="utf-8"),
    )


def embedded(data: Any) -> str:
    """JSON that cannot end the element that it stands in, whatever texts it holds."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _samples(
    wanted: int,
    judgement: Judgement,
    records: Records,
    dataset: TokenDataset,
    scores: ScoreFiles,
    tokenizer: PreTrainedTokenizerFast,
) -> list[dict[str, Any]]:
    """The first records of the ranking, token by token, as many as the page can hold."""
    shown: list[dict[str, Any]] = []
    size = 0
    ranked = judgement.ranked[: min(wanted, int(judgement.scored_N.sum()))]
    for rank, index in enumerate(ranked.tolist(), start=1):
        samples = records.samples(index)
        tokens = [scores.tokens_of(sample) for sample in samples]
        loss = np.concatenate([part for part, _ in tokens])[:SHOWN_TOKENS]
        entropy = np.concatenate([part for _, part in tokens])[:SHOWN_TOKENS]
        texts = answer([dataset[sample] for sample in samples], tokenizer)[:SHOWN_TOKENS]
        divergence = judgement.token_loss.z(loss) - judgement.token_entropy.z(entropy)
        first = dataset[samples.start]
        prompt = tokenizer.decode(first.input_ids[: int(first.supervised.argmax())].tolist())
        source, line = records.places[index]
        spans = judgement.spans.get(index, [])
        sample = {
            "rank": rank,
            "place": f"{source}:{line}",
            "class": judgement.class_of(index),
            "scores": [
                round(float(values[index]), 3)
                for values in (judgement.loss_N, judgement.entropy_N, judgement.divergence_N)
            ],
            "reasons": reasons(judgement, index, ["".join(texts[begin:end]) for begin, end in spans], records),
            "leftOut": judgement.left_out.get(index),
            "cluster": int(judgement.clusters.label_N[index]) if judgement.clusters is not None else None,
            "prompt": prompt[-SHOWN_CHARACTERS:],
            "tokens": texts,
            "loss": [round(value, 2) for value in loss.tolist()],
            "entropy": [round(value, 2) for value in entropy.tolist()],
            "divergence": [round(value, 2) for value in divergence.tolist()],
            "spans": spans,
        }
        size += len(embedded(sample))
        if size > SAMPLE_BYTES:
            break
        shown.append(sample)
    return shown


def _grid(judgement: Judgement) -> list[list[int]]:
    """[column, row, records] of each filled cell of z(loss) by z(entropy)."""
    edges = np.linspace(-Z_RANGE, Z_RANGE, GRID + 1)
    scored = judgement.scored_N
    x_N, y_N = (np.clip(z[scored], -Z_RANGE, Z_RANGE) for z in (judgement.z_loss_N, judgement.z_entropy_N))
    counts, _, _ = np.histogram2d(x_N, y_N, bins=(edges, edges))
    return [[int(x), int(y), int(counts[x, y])] for x, y in np.argwhere(counts > 0).tolist()]


def _map(judgement: Judgement, records: Records) -> list[list[Any]]:
    """[x, y, cluster, class] of records that are evenly spread over the corpus."""
    if judgement.clusters is None:
        return []
    chosen = np.unique(np.linspace(0, len(records) - 1, min(len(records), MAP_POINTS)).astype(int)).tolist()
    where, label = judgement.clusters.map_N2, judgement.clusters.label_N
    return [
        [
            round(float(where[i, 0]), 3),
            round(float(where[i, 1]), 3),
            int(label[i]),
            CLASSES.index(name) if (name := judgement.class_of(i)) else -1,
        ]
        for i in chosen
    ]


def _clusters(judgement: Judgement, records: Records) -> list[dict[str, Any]]:
    """The largest clusters with the records that stand for them."""
    if judgement.clusters is None:
        return []
    label, wrong = judgement.clusters.label_N, judgement.class_N
    found = [
        {
            "name": name,
            "records": int((label == name).sum()),
            "wrong": int(((label == name) & (wrong == 0)).sum()) if wrong is not None else 0,
            "loss": round(float(judgement.loss_N[label == name].mean()), 3),
            "representatives": [_text(records, index)[:300] for index in members],
        }
        for name, members in judgement.clusters.representatives.items()
    ]
    return sorted(found, key=lambda one: -int(str(one["records"])))[:SHOWN_CLUSTERS]


def _pairs(judgement: Judgement, records: Records) -> list[dict[str, str]]:
    """Near-duplicates beside what they repeat."""
    found: list[dict[str, str]] = []
    for index, first in enumerate(judgement.first or ()):
        if first != index and len(found) < PAIRS:
            places = [f"{source}:{line}" for source, line in (records.places[first], records.places[index])]
            found.append(
                {
                    "firstPlace": places[0],
                    "first": _text(records, first),
                    "againPlace": places[1],
                    "again": _text(records, index),
                }
            )
    return found


def _text(records: Records, index: int) -> str:
    return "\n".join(texts_of(records[index]))[:SHOWN_CHARACTERS]
