"""How `ytrain check` looks: samples with what is learned marked, the run in a few lines, then what is wrong.

Text from data and messages is never read as markup, and control characters in it are made visible.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ytrain.report.series import byte_size

if TYPE_CHECKING:
    from ytrain.data import DataReport
    from ytrain.methods.check import Check, Preview
    from ytrain.methods.forecast import Course, FirstStep, Memory
    from ytrain.models.cost import WindowCost

LEARNED = "bold green"
MARKS = ("«", "»")
"""Around what is learned, where there is no colour."""

SHOWN_CHARACTERS = 600
"""A longer run of a sample is cut in its middle."""

PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
"""Control characters become their visible pictures: data must not steer the terminal."""

PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "head": "output head",
    "backward": "backward pass",
    "frozenModels": "teacher, start model",
    "betweenSteps": "more between steps",
    "checkpointCopies": "copies for a checkpoint",
}


def print_check(console: Console, name: str, result: "Check", *, next_command: str) -> None:
    """Print all of a check, the verdict last, where it is seen."""
    console.print(Text(name, style="bold"))
    if result.previews:
        _print_previews(console, result.previews, result.done)
    sections = Table.grid(padding=(0, 3, 0, 0))
    sections.add_column(style="bold", no_wrap=True)
    sections.add_column()
    for title, content in _sections(result):
        sections.add_row(title, content)
    if sections.row_count:
        console.print()
        console.print(sections)
    console.print()
    for note in result.notes:
        _print_message(console, "note", "dim", note)
    for warning in result.warnings:
        _print_message(console, "warning", "bold yellow", warning)
    if result.findings.messages:
        print_findings(console, result.findings.messages)
    else:
        verdict = "fine but for the warnings" if result.warnings else "nothing wrong found"
        console.print(Text.assemble((verdict, "bold green"), f"; next: {next_command}"), soft_wrap=True)


def print_findings(console: Console, messages: Sequence[str]) -> None:
    """Print what is wrong, a line each, and how many."""
    for message in messages:
        _print_message(console, "error", "bold red", message)
    count = len(messages)
    console.print(Text(f"{count} {'finding' if count == 1 else 'findings'}", style="bold red"))


def _print_message(console: Console, kind: str, style: str, message: str) -> None:
    console.print(Text.assemble((f"{kind}: ", style), visible(message)), soft_wrap=True)


def _print_previews(console: Console, previews: Sequence["Preview"], done: str) -> None:
    coloured = console.is_terminal and not console.no_color
    console.print()
    scored = any(preview.reward is not None and preview.labels for preview in previews)
    what = "the record's own answer, which is not learned," if scored else f"what is {done}"
    if coloured:
        console.print(Text.assemble(("Samples", "bold"), f"; {what} is ", ("green", LEARNED)))
    else:
        console.print(Text(f"Samples; {what} is between {MARKS[0]} and {MARKS[1]}"))
    for preview in previews:
        console.print()
        title = f"{visible(preview.place)}  {preview.tokens} tokens, {_worth(preview, done)}"
        console.print(Text(title, style="dim"), soft_wrap=True)
        for line in marked(preview.runs, coloured=coloured).split("\n", allow_blank=True):
            console.print(Text("  ").append_text(line), soft_wrap=True)


def _worth(preview: "Preview", done: str) -> str:
    if preview.reward is None:
        return f"{preview.labels} {done}"
    own = "" if preview.labels else "no answer of its own, an empty one gets "
    if isinstance(preview.reward, str):
        return f"{own}no reward: {visible(preview.reward)}"
    return f"{own}reward {preview.reward:.3g}"


def marked(runs: Sequence[tuple[str, bool]], *, coloured: bool) -> Text:
    """A sample's runs as one text, what is learned in colour or between marks, long runs shortened."""
    text = Text()
    for content, learned in runs:
        shown = shortened(visible(content))
        if not learned:
            text.append(shown)
        elif coloured:
            text.append(shown, LEARNED)
        else:
            text.append(f"{MARKS[0]}{shown}{MARKS[1]}")
    return text


def shortened(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """A text of at most about `limit` characters, the middle of a longer one left out and counted."""
    left_out = len(text) - limit
    if left_out <= 0:
        return text
    half = limit // 2
    return f"{text[:half]} [... {left_out:,} characters ...] {text[-half:]}"


def visible(text: str) -> str:
    """A text without control characters but line breaks and tabs."""
    return text.translate(PICTURES)


def _sections(result: "Check") -> Iterator[tuple[str, RenderableType]]:
    if result.data:
        yield "Data", _data(result.data, result.done, answered=result.answers_per_step is not None)
    if result.course:
        yield "Steps", _course(result.course, result.answers_per_step)
    if result.windows:
        yield "Windows", _windows(result.windows)
    if result.memory:
        yield "Memory", _memory(result.memory)
    if result.duration:
        where = f"{result.duration.device}, {result.duration.precision}"
        yield "Time", f"{about(result.duration.seconds)} of training on {where}; evaluation and saving come on top"


def _data(report: "DataReport", done: str, *, answered: bool) -> Text:
    share = report.supervised_tokens / report.tokens
    tokens = f"{report.samples:,} samples, {report.tokens:,} tokens, {report.supervised_tokens:,} {done} ({share:.0%})"
    lines = [
        f"{report.read:,} records read, {report.used:,} used, {report.skipped:,} skipped",
        f"{report.samples:,} prompts" if answered else tokens,
    ]
    lines += [f"skipped {count:,}: {reason}" for reason, count in report.reasons.items()]
    lines += [f"  {skipped}" for skipped in report.first_skipped]
    others = {"truncated": report.truncated, "split": report.split, "chats split by turn": report.split_chats}
    lines += [f"{count:,} {name}" for name, count in others.items() if count]
    return Text(visible("\n".join(lines)))


def _course(course: "Course", answers: int | None) -> str:
    a_step = "each on a window" if course.samples_per_step is None else f"{course.samples_per_step:.3g} samples a step"
    if answers is not None:
        a_step = f"{course.first.samples} {_plural('prompt', course.first.samples)} a step, up to {answers:,} answers"
    default = " (the default for this model; optimization.learningRate sets it)"
    lines = [
        f"{course.steps:,} {_plural('step', course.steps)} in {course.epochs:.4g} "
        f"{'epoch' if course.epochs == 1 else 'epochs'}, {a_step}",
        f"learning rate {course.learning_rate:.2g} at the peak{default if course.learning_rate_is_default else ''}",
    ]
    if course.samples_per_step is not None and answers is None:
        lines.insert(1, _first_step(course.first))
    if course.filling is not None:
        lines.insert(2, f"rows of {course.filling.row_tokens:,} tokens are {course.filling.share:.1%} full")
        if course.filling.forwarded < 1:
            spared = 1 - course.filling.forwarded
            lines.insert(3, f"{spared:.1%} of the tokens are beginnings that samples of a row share: computed once")
    return "\n".join(lines)


def _first_step(first: "FirstStep") -> str:
    rows = f"{first.rows} {_plural('row', first.rows)}"
    return f"first step: {first.samples} {_plural('sample', first.samples)}, {first.tokens:,} tokens in {rows}"


def _windows(cost: "WindowCost") -> str:
    return (
        f"{cost.forward_per_trained:.1f} tokens forwarded for each one learned, "
        f"{cost.times_whole:.1f} times the forward work of training without windows"
    )


def _memory(memory: "Memory") -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, size in memory.need.parts.items():
        if size:
            table.add_row(PARTS[name], byte_size(size))
    sharing = memory.need.sharing
    table.add_row(
        f"at the peak{f' of {sharing} ranks' if sharing > 1 else ''}",
        byte_size(memory.need.total),
        style="bold",
    )
    table.add_row("this machine has", byte_size(memory.available))
    return table


def about(seconds: float) -> str:
    """A rough time in words, as precise as an estimate can be."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"about {seconds / 3600:.0f} h"
    return f"about {seconds / 86400:.0f} days"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
