"""Says where an unsuccessful run stands: failed, stopped, or not finished, how far it came, and what to do.

The page shows it above everything else, the terminal prints it first.
"""

from dataclasses import dataclass

from ytrain.report.record import RunRecord, RunState


@dataclass(frozen=True)
class Standing:
    """A headline without its full stop, and the explanation under it."""

    headline: str
    explanation: str


def standing(record: RunRecord) -> Standing | None:
    """Where the run stands; None when it succeeded."""
    if record.state is RunState.SUCCEEDED:
        return None
    reached = f"after step {record.metrics[-1].step}" if record.metrics else "before its first step"
    failure = record.result.failure.message if record.result and record.result.failure else None
    match record.state:
        case RunState.FAILED:
            return Standing(f"This run failed {reached}", failure or "It left no message; its log may say more.")
        case RunState.PREEMPTED:
            resume = "It left a checkpoint: start it again with the same work folder to go on from there."
            return Standing(f"This run was stopped {reached} and can go on", failure or resume)
        case _:
            return Standing(
                f"This run has not finished; it was last seen {reached}",
                "It is still running, or it was killed before it could say why. Starting it again with the same work "
                "folder resumes from its newest checkpoint.",
            )
