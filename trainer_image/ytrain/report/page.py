"""Writes `report.html`, the one self-contained page about a run.

It gathers what `record.py` read, `outcome.py` judged and `run_charts.py` laid out, and hands it to the template; text
from the data is always escaped there, and the page's own policy forbids it to load anything.
"""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from ytrain.report.outcome import judge
from ytrain.report.record import RunRecord, read_run
from ytrain.report.reward import reward_change
from ytrain.report.rl_samples import shown_trees
from ytrain.report.run_charts import run_charts
from ytrain.report.series import byte_size, duration
from ytrain.report.standing import standing

SHOWN_EXAMPLES = 24
"""Task samples in the table of answers; those whose verdict changed come first."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the run folder, whatever state the run is in, and return its path.

    Raises FileNotFoundError when the folder does not exist.
    """
    page = run_dir / "report.html"
    unfinished = page.with_suffix(".html.part")
    unfinished.write_text(render(read_run(run_dir)), encoding="utf-8")
    return unfinished.replace(page)


def render(record: RunRecord) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=PackageLoader("ytrain.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(bytes=byte_size, duration=duration)
    outcome = judge(record.evaluation, reward_change(record.metrics))
    return environment.get_template("page.html.j2").render(
        record=record,
        outcome=outcome,
        examples=outcome.examples[:SHOWN_EXAMPLES],
        charts=run_charts(record),
        trees=shown_trees(record),
        standing=standing(record),
        facts=facts(record),
        environment_rows=environment_rows(record),
        verified_rows=verified_rows(record),
        timing=timing(record),
        job_yaml=yaml.safe_dump(record.job, sort_keys=False, allow_unicode=True, width=100) if record.job else "",
    )


def facts(record: RunRecord) -> list[tuple[str, str]]:
    """The few numbers under the title."""
    spec = record.job.get("spec") or {}
    result = record.result
    rows = []
    source = (spec.get("model") or {}).get("source")
    method = next(
        (name.upper() for name in ("sft", "cpt", "rl", "corpus") if name in spec and spec[name] is not None), None
    )
    if source:
        rows.append(("Model", str(source)))
    if method:
        lora = (spec.get("model") or {}).get("lora")
        words = "corpus analysis" if method == "CORPUS" else f"{method}, {'LoRA' if lora else 'all weights'}"
        rows.append(("Method", words))
    if record.metrics:
        rows.append(("Steps", f"{record.metrics[-1].step:,} in {record.metrics[-1].epoch:.2f} epochs"))
        rows.append(("Trained tokens", f"{sum(metrics.supervised_tokens for metrics in record.metrics):,}"))
    if result and result.timing:
        rows.append(("Took", duration(sum(result.timing.values()))))
    if result and result.device:
        rows.append(("Device", result.device))
    return rows


_VERIFIED = {
    "maxLogitDifference": "Read back, its logits differ by",
    "mergedMaxLogitDifference": "Those of the merged model by",
    "changeFromBase": "Training moved the logits by",
}


def verified_rows(record: RunRecord) -> list[tuple[str, str]]:
    """What reading the output back showed, as shares of the largest logit; nothing of what was not measured."""
    output = record.result.output if record.result else None
    measured = output.verified.items() if output else ()
    return [
        (_VERIFIED.get(name, name), f"{value:.1e}" if isinstance(value, float) else str(value))
        for name, value in measured
        if value is not None
    ]


def environment_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Device, memory, versions and digests: what is needed to judge a number or to repeat the run."""
    result = record.result
    rows: list[tuple[str, str]] = []
    if result:
        rows += [("Device", result.device or ""), ("Compute precision", result.precision or "")]
        if result.parameters:
            share = result.parameters.trainable / max(1, result.parameters.total)
            rows.append(
                ("Parameters", f"{result.parameters.total:,}, trained {result.parameters.trainable:,} ({share:.1%})")
            )
            if result.parameters.moved_fraction is not None:
                rows.append(("Trained weights that moved", f"{result.parameters.moved_fraction:.1%}"))
    peak = max((m.peak_memory_bytes for m in record.metrics if m.peak_memory_bytes), default=None)
    if result and result.memory:
        peak = result.memory.peak_bytes or peak
        if result.memory.estimated_bytes:
            rows.append(("Memory estimated", byte_size(result.memory.estimated_bytes)))
    if peak:
        rows.append(("Memory at the peak", byte_size(peak)))
    if result and result.packing:
        rows.append(("Rows filled", f"{result.packing.filled:.1%} of {result.packing.row_tokens:,} tokens"))
        if result.packing.forwarded < 1:
            rows.append(("Tokens computed for several samples", f"{1 - result.packing.forwarded:.1%}"))
    if waited := [m.data_wait_seconds for m in record.metrics if m.data_wait_seconds is not None]:
        trained = sum(m.seconds or 0.0 for m in record.metrics)
        rows.append(
            ("Waiting for data", f"{sum(waited) / trained:.1%} of training" if trained else duration(sum(waited)))
        )
    if result:
        rows += [(name, version) for name, version in result.versions.items() if version]
        rows += [(f"Digest of the {name}", digest) for name, digest in result.digests.items() if digest]
    return [(name, value) for name, value in rows if value]


def timing(record: RunRecord) -> list[dict[str, Any]]:
    """The phases of the run with their seconds, their share of the whole and strength of colour, both in %."""
    seconds = record.result.timing if record.result else {}
    whole = sum(seconds.values())
    longest = max(seconds.values(), default=0.0)
    others = [phase for phase, value in seconds.items() if value < longest]
    return [
        {
            "phase": phase,
            "seconds": value,
            "share": 100 * value / whole,
            "tint": 100 if phase not in others else 20 + 50 * others.index(phase) // max(1, len(others) - 1),
        }
        for phase, value in seconds.items()
        if whole > 0
    ]
