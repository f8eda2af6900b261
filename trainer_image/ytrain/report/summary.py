"""The closing words of a run in the terminal: what was gained, what was kept, where everything is, what to do next.

All numbers and verdicts are `outcome.py`'s, the same that stand on the page.
"""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ytrain.report.corpus_summary import print_corpus_summary
from ytrain.report.outcome import Change, Outcome, judge
from ytrain.report.record import RunRecord, RunState, read_run
from ytrain.report.reward import RewardChange, reward_change
from ytrain.report.standing import standing

STYLES = {
    Change.BETTER: "green",
    Change.SAME: "",
    Change.KEPT: "green",
    Change.SLIGHTLY_WORSE: "yellow",
    Change.WORSE: "red",
    Change.NOT_A_NUMBER: "red",
}


def print_summary(run_dir: Path, console: Console) -> None:
    """Print the outcome of the run in `run_dir`, finished or not. Raises FileNotFoundError without such a folder."""
    record = read_run(run_dir)
    if record.state is RunState.SUCCEEDED and record.result and record.result.corpus:
        print_corpus_summary(run_dir, record.result.model_dump(by_alias=True), console)
        return
    reward = reward_change(record.metrics)
    outcome = judge(record.evaluation, reward)
    console.print()
    for sentence in _state_words(record):
        console.print(sentence, markup=False, highlight=False)
    if outcome.alarm:
        console.print(outcome.alarm, style="red", markup=False, highlight=False)
    if outcome.step is not None or reward:
        console.print(_changes(outcome, reward))
    if outcome.step is not None:
        console.print(outcome.gained, markup=False, highlight=False)
        console.print(outcome.kept, markup=False, highlight=False)
    if record.skipped.total:
        reason, count = next(iter(record.skipped.reasons.items()))
        words = f"{record.skipped.total} records were skipped, {count} of them: {reason}"
        console.print(f"{words} (all in {run_dir / 'skipped.jsonl'})", markup=False, highlight=False)
    for name, place in _places(record):
        console.print(f"[dim]{name:<7}[/] {escape(place)}", highlight=False, soft_wrap=True)


def _state_words(record: RunRecord) -> list[str]:
    problem = standing(record)
    if problem is None:
        return [f"{record.name}: done, {record.metrics[-1].step if record.metrics else 0} steps."]
    return [f"{record.name}: {problem.headline}.", problem.explanation]


def _changes(outcome: Outcome, reward: RewardChange | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    table.add_column("")
    for task in outcome.tasks:
        counts = [f"{score.accuracy:.0%} ({score.correct}/{score.samples})" for score in (task.before, task.after)]
        table.add_row(escape(task.name), *counts, f"{task.points:+.0f} points", _verdict(task.change))
    texts = [*([outcome.validation] if outcome.validation else []), *outcome.retention]
    for text in texts:
        numbers = (f"{text.before:.3f}", f"{text.after:.3f}", text.moved)
        table.add_row(f"loss: {escape(text.name)}", *numbers, _verdict(text.change))
    if reward:
        numbers = (f"{reward.first:.3f}", f"{reward.last:.3f}", f"{reward.last - reward.first:+.3f}")
        table.add_row(f"reward, mean of the {reward.ends}", *numbers, "")
    if outcome.kl_to_start is not None:
        table.add_row("KL to the start, nats per token", "0", f"{outcome.kl_to_start:.3f}", "", "")
    return table


def _verdict(change: Change) -> str:
    style = STYLES[change]
    return f"[{style}]{change}[/]" if style else str(change)


def _places(record: RunRecord) -> list[tuple[str, str]]:
    """Where things are, and the next command."""
    output = record.result.output if record.result else None
    places = [("output", output.path)] if output else []
    places.append(("report", str(record.folder / "report.html")))
    if record.state is not RunState.SUCCEEDED:
        # Not the folder's own job.yaml: paths beside the job file, claims and ConfigMaps are not in it.
        places.append(("next", f"the same `ytrain run FILE` as before; it goes on in {record.folder}"))
    elif output and (Path(output.path) / "adapter_config.json").exists():
        places.append(("next", f"ytrain merge {output.path} DIR  (makes the adapter a model of its own)"))
    return places
