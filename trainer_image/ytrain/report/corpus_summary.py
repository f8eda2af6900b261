"""The last words of a corpus job in the terminal: records by class, what was left out, where the files are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_corpus_summary(run_dir: Path, result: Mapping[str, Any], console: Console) -> None:
    """Print what `corpus` and `output` of a finished job's result.json say."""
    found, output = result["corpus"], str(result["output"]["path"])
    cleaned = f"{output}/cleaned.jsonl"
    source = cleaned if "://" in cleaned else f"file://{Path(cleaned).absolute()}"
    console.print()
    console.print(f"{escape(result['job'])}: done, {found['records']:,} records scored.", highlight=False)
    if found["classes"]:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("class", "records", "share"):
            table.add_column(column, justify="left" if column == "class" else "right")
        for name, count in found["classes"].items():
            table.add_row(name, f"{count:,}", f"{count / found['records']:.1%}")
        console.print(table)
    counts = [
        (found["nearDuplicates"], "near-duplicates"),
        (found["clusters"], "clusters"),
        (found["odd"], "records unlike the rest"),
    ]
    console.print(", ".join(f"{count:,} {words}" for count, words in counts if count is not None), highlight=False)
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in found["leftOut"].items()) or "none"
    console.print(f"kept {found['kept']:,}; left out: {left_out}", highlight=False)
    for name, place in (
        ("ranked", f"{output}/scored.jsonl"),
        ("cleaned", cleaned),
        ("page", run_dir / "corpus.html"),
        ("next", f"read the page, then name {source} in data.train of a job"),
    ):
        console.print(f"[dim]{name:<7}[/] {escape(str(place))}", highlight=False, soft_wrap=True)
