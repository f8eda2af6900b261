"""Which of several ended ranks was the cause, and whether trying again is of use."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from signal import Signals

from ytrain_api.protocol import RankEnd

PERMANENT = (2, 3, 4)
"""Exit codes of failures that come back: a wrong job file, wrong data, training that cannot go on."""

PREEMPTED, LOST_PEER = 143, "LostPeer"


@dataclass(frozen=True)
class Ending:
    """What ended a generation early."""

    message: str
    end: RankEnd | None = None
    permanent: int | None = None
    """Exit code of the job, where another try would fail alike."""
    hang: bool = False


def judge(ends: Sequence[RankEnd], *, all_ended: bool, stopping: bool) -> Ending | None:
    """What ended the generation, from the ranks that ended so far; None while nothing is wrong.

    A rank that lost its peer is a witness, not the cause: another one's end is looked for first.
    """
    for end in ends:
        if end.exit_code in PERMANENT and end.message is not None:
            return Ending(f"rank {end.rank}: {end.message}", end, permanent=end.exit_code)
    wrong = [end for end in ends if not end.done and not (stopping and stopped(end))]
    if not wrong:
        return None
    causes = [end for end in wrong if end.kind != LOST_PEER] or (wrong if all_ended else [])
    if not causes:
        # The cause is on its way from another worker; if none comes, that worker's silence will tell.
        return None
    cause = min(causes, key=lambda end: (end.exit_code >= 0, end.rank))
    return Ending(f"rank {cause.rank} {_how(cause)}", cause)


def stopped(end: RankEnd) -> bool:
    """Whether a rank ended because it was asked to; by the bare signal, if it had only just begun."""
    return end.exit_code in (PREEMPTED, -Signals.SIGTERM)


def _how(end: RankEnd) -> str:
    if end.exit_code < 0:
        return f"was ended by {_signal(-end.exit_code)}"
    if end.exit_code == 0:
        return "ended before the job was done"
    told = f": {end.message}" if end.message else ""
    return f"ended with exit code {end.exit_code}{told}"


def _signal(number: int) -> str:
    try:
        name = Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


def odd_one(ends: Sequence[RankEnd]) -> str:
    """Which rank stands somewhere else than most, in words; one that does not answer is odd in any case."""
    silent = sorted(end.rank for end in ends if end.stack is None)
    places = {end.rank: end.stack for end in ends if end.stack is not None}
    words = [f"rank {rank} did not answer" for rank in silent]
    if places:
        (common, count), *_ = Counter(places.values()).most_common()
        odd = {rank: place for rank, place in sorted(places.items()) if place != common}
        words += [f"rank {rank} stood in {place}" for rank, place in odd.items()]
        who = "the others stood" if words else "all ranks stood" if count > 1 else "the rank stood"
        words.append(f"{who} in {common}")
    return "; ".join(words) or "no rank told where it stood"
