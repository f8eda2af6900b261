"""Tells a person or a log, while a run is going, what it does and how far it is.

A terminal gets one live line with a bar; a log (CI, a pod) gets a plain line now and then. Both show the same numbers,
taken from the lines of metrics.jsonl.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from ytrain.report.series import duration
from ytrain_api.protocol import Facts

RATE_WINDOW = 25
"""Steps whose median duration foretells the rest: long enough for a calm number, short enough to follow a change."""

LOG_SECONDS = 15.0
"""Least time between two step lines in a log."""


class Progress(Protocol):
    """What a run reports to while it goes."""

    def phase(self, name: str) -> None:
        """A new part of the run begins, such as "loading" or "training"; the one before has ended."""

    def activity(self, name: str) -> None:
        """What happens inside the phase now, such as "saving", where it is not what the phase says."""

    def step(self, metrics: Mapping[str, Any], total_steps: int) -> None:
        """An optimizer step is done; `metrics` is its line of metrics.jsonl."""

    def beat(self) -> None:
        """The work goes on inside a step, however long that takes. May be called as often as one likes."""

    def note(self, text: str) -> None:
        """Something worth a line of its own."""

    def found(self, facts: Facts) -> None:
        """Something that the status of a job shows; the run's files have it too."""

    def close(self) -> None:
        """The run is over; the last phase has ended."""


def open_progress(console: Console, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A live line when the console is a terminal, else plain lines. `clock` gives seconds."""
    return TerminalProgress(console, clock) if console.is_terminal else LogProgress(console, clock)


class RecentRate:
    """Foretells the remaining time from the median of the latest steps, which one slow step does not move."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RATE_WINDOW)

    def add(self, seconds: float) -> None:
        """A step took this many seconds."""
        self._seconds.append(seconds)

    def remaining(self, steps: int) -> float | None:
        """Seconds for this many more steps; None before the first one is timed."""
        return steps * statistics.median(self._seconds) if self._seconds else None


def step_words(metrics: Mapping[str, Any], remaining: float | None) -> str:
    """Loss or reward, tokens per second, learning rate and remaining time of one step, as both displays show them."""
    words = []
    forms = {"loss": "loss {:.3f}", "tokensPerSecond": "{:,.0f} tok/s", "learningRate": "lr {:.1e}"}
    if metrics.get("rl"):
        del forms["loss"]
        reward = metrics["rl"]["rewardMean"]
        words.append("no reward" if reward is None else f"reward {reward:.3f}")
    for key, form in forms.items():
        if metrics.get(key) is not None:
            words.append(form.format(metrics[key]))
    if remaining is not None:
        words.append(f"{duration(remaining)} left")
    return "  ".join(words)


class LogProgress:
    """Plain lines for a log: every phase, the first and the last step, and a step every `LOG_SECONDS`."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._rate = RecentRate()
        self._printed_at: float | None = None
        self._quiet_since = clock()

    def phase(self, name: str) -> None:
        """Print the phase."""
        self._print(f"{name} ...")

    def activity(self, name: str) -> None:
        """Print it where nothing else was printed for a while."""
        if self._clock() - self._quiet_since >= LOG_SECONDS:
            self._print(name)

    def step(self, metrics: Mapping[str, Any], total_steps: int) -> None:
        """Print the step unless another one was printed a moment ago."""
        self._rate.add(float(metrics["seconds"]))
        step, now = int(metrics["step"]), self._clock()
        if self._printed_at is not None and now - self._printed_at < LOG_SECONDS and step < total_steps:
            return
        self._printed_at = now
        remaining = self._rate.remaining(total_steps - step)
        self._print(f"step {step}/{total_steps} ({step / total_steps:.0%})  {step_words(metrics, remaining)}")

    def beat(self) -> None:
        """Nothing to print."""

    def note(self, text: str) -> None:
        """Print the text."""
        self._print(text)

    def found(self, facts: Facts) -> None:
        """Nothing: the summary at the end shows it."""

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, text: str) -> None:
        self._quiet_since = self._clock()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class TerminalProgress:
    """One live line with a bar; every finished phase leaves a line with the time that it took."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._rate = RecentRate()
        self._phase: str | None = None
        self._began = clock()
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[words]}", style="dim"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, count="", words="", visible=False)
        self._bar.start()

    def phase(self, name: str) -> None:
        """Close the phase before with its time and show the new one."""
        self._finish_phase()
        self._phase, self._began = name, self._clock()
        self._bar.update(
            self._task, description=escape(name), visible=True, total=None, completed=0, count="", words=""
        )

    def activity(self, name: str) -> None:
        """Show it beside the bar until the next step."""
        self._bar.update(self._task, words=name)

    def step(self, metrics: Mapping[str, Any], total_steps: int) -> None:
        """Move the bar."""
        self._rate.add(float(metrics["seconds"]))
        step = int(metrics["step"])
        words = step_words(metrics, self._rate.remaining(total_steps - step))
        self._bar.update(self._task, total=total_steps, completed=step, count=f"{step}/{total_steps}", words=words)

    def beat(self) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Print the text above the live line."""
        self._console.print(text, markup=False, highlight=False)

    def found(self, facts: Facts) -> None:
        """Nothing: the summary at the end shows it."""

    def close(self) -> None:
        """Take the live line away."""
        self._finish_phase()
        self._bar.stop()

    def _finish_phase(self) -> None:
        if self._phase is not None:
            took = duration(self._clock() - self._began)
            self._console.print(f"[green]✓[/] {escape(self._phase)} [dim]{took}[/]", highlight=False)
        self._phase = None
