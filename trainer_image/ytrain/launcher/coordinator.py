"""Decides when ranks start, stop and start again, from what the agents report and from the clock. Pure: no input, no
output, no waiting.

A generation is one start of all ranks. Whatever ends it early (a rank that died, an agent that is gone, a hang) ends
all of it, because the survivors sit in a collective that never returns; the next one goes on from the last checkpoint.

A job may go on with fewer workers than it wants. Those that come later are taken in at a checkpoint.
"""

from dataclasses import dataclass, field

from ytrain.launcher.budget import Budget
from ytrain.launcher.device_time import DeviceTime
from ytrain.launcher.failures import Ending, judge, odd_one, stopped
from ytrain.launcher.movement import Movement
from ytrain_api.protocol import Facts, Order, RankEnd, RankProgress, Ranks, Report

LOST_SECONDS = 10.0
"""Silence after which an agent counts as gone; agents report every second."""

TAKEN_SECONDS = 3.0
"""Silence after which another agent may take an index: shorter than LOST_SECONDS, so that a replacement waits less."""

GATHER_SECONDS = 60.0
"""How long the workers that are there wait for the others, where they may begin without them; and how long ranks run at
least before they stop for workers that came later."""

PREEMPTED, RETRYABLE = 143, 5


class Refused(Exception):
    """A report that does not belong here; the message tells the agent's user why."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final
        """Whether asking again is of no use."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the job says about its workers."""

    job: str
    workers: int
    least: int
    """Workers without which nothing begins."""
    restarts: int
    """Failures in a row without a new step after which the job fails."""
    hang_seconds: float | None
    """None: from the median step."""
    join_seconds: float | None
    """Longest wait for all workers; None waits for ever."""


@dataclass
class Member:
    """An agent, as last heard."""

    report: Report
    seen: float


@dataclass(frozen=True)
class Outcome:
    """How the job ended."""

    exit_code: int
    message: str


@dataclass
class Coordinator:
    """The state of one job. Times are seconds of one clock, given by the caller."""

    rules: Rules
    now: float
    members: dict[int, Member] = field(default_factory=dict)
    generation: int = 0
    running: bool = False
    stopping: str | None = None
    """Why the job is asked to stop."""
    regrouping: bool = False
    """Whether the ranks were asked to save and end, to go on with more workers."""
    outcome: Outcome | None = None
    failure: Ending | None = None
    """What ended the latest generation early."""
    progress: RankProgress | None = None
    """The latest of rank 0."""
    facts: Facts = field(default_factory=Facts)
    """What rank 0 has found, in any generation."""
    device_time: DeviceTime = field(default_factory=DeviceTime)
    number: int = 1
    """Of the current orders."""
    _team: frozenset[int] | None = frozenset()
    """Workers of this generation; None: it was found running, and not all of them have come back."""
    _layout: dict[int, Ranks] = field(default_factory=dict)
    _began: float = 0.0
    _stacks: bool = False
    _not_before: float = 0.0
    _waiting_since: float = field(init=False)
    _movement: Movement = field(init=False)
    _budget: Budget = field(init=False)

    def __post_init__(self) -> None:
        self._waiting_since, self._movement, self._budget = self.now, Movement(self.now), Budget(self.rules.restarts)

    @property
    def restarts(self) -> int:
        """Starts of the ranks after the first."""
        return max(0, self.generation - (1 if self.running or self.outcome else 2)) if self.generation else 0

    @property
    def missing(self) -> list[int]:
        """Indices of the workers that are not there."""
        return [index for index in range(self.rules.workers) if index not in self.members]

    @property
    def absent(self) -> int:
        """Workers that the running ranks began without."""
        return self.rules.workers - len(self._team) if self.running and self._team is not None else 0

    def take(self, report: Report, now: float) -> Order:
        """Hear an agent; returns its order.

        Raises:
            Refused: another job, an index that does not exist or that a living agent holds, or an agent that was
                replaced.
        """
        self._check(report, now)
        before = self.members.get(report.index)
        self.members[report.index] = Member(report, now)
        if report.state != "idle" and report.generation > self.generation and not self.running:
            self._adopt(report, now)
        if self.outcome is None:
            self._account(report, before)
        if report.generation == self.generation and self.running:
            self._hear_progress(report, now)
        self._hear_facts(report)
        if report.stopping and self.stopping is None and not self._is_spare(report.index):
            self.stop(f"worker {report.index} was asked to stop")
        self.advance(now)
        return self.order(report.index)

    def advance(self, now: float) -> None:
        """Do what the clock and the reports call for."""
        self.now = now
        if self.outcome is not None:
            return
        for index, member in list(self.members.items()):
            if now - member.seen > LOST_SECONDS and not self._has_told(member.report):
                took_part = self._takes_part(index)
                del self.members[index]
                if self.running and took_part:
                    self._end_generation(Ending(f"worker {index} is gone: nothing heard for {LOST_SECONDS:.0f} s"))
        if self.running and self._team is None:
            self._judge_adopted()
        if self.running:
            self._judge_ends()
        if self.running:
            self._find_hang()
            self._regroup()
        if not self.running and self.outcome is None:
            self._gather()

    def stop(self, reason: str) -> None:
        """Ask the ranks to save and end."""
        if self.stopping is None and self.outcome is None:
            self.stopping = reason
            self.number += 1

    def order(self, index: int) -> Order:
        """What worker `index` should do."""
        if self.outcome is not None:
            return self._order("leave", exit_code=self.outcome.exit_code, reason=self.outcome.message)
        if not self.running:
            return self._order("wait", stacks=self._stacks, reason=self.waiting_for())
        if self._is_spare(index):
            if self.members[index].report.stopping:
                return self._order("leave", exit_code=PREEMPTED, reason="stopped before it had ranks")
            return self._order("wait", reason="the ranks run, and will stop at a checkpoint to take this worker in")
        if self.stopping is not None:
            return self._order("stop", reason=self.stopping)
        if self.regrouping:
            return self._order("stop", reason="more workers have come")
        return self._order("run", ranks=self._layout.get(index))

    def waited(self) -> float:
        """Seconds since the ranks ended, or since the beginning."""
        return self.now - self._waiting_since

    def waiting_for(self) -> str:
        """What keeps the ranks from running, for people."""
        if self.missing:
            waiting = f"waiting for worker {', '.join(str(index) for index in self.missing)} of {self.rules.workers}"
            if len(self.members) < self.rules.least:
                return waiting
            return f"{waiting}; the others begin without after {self._patience:.0f} s"
        if self.now < self._not_before:
            return f"starting again in {self._not_before - self.now:.0f} s"
        return "waiting for ranks to end"

    def _order(self, action: str, **rest: object) -> Order:
        return Order.model_validate(
            {
                "number": self.number,
                "action": action,
                "generation": self.generation,
                "spent": self.device_time.spent,
                **rest,
            }
        )

    def _check(self, report: Report, now: float) -> None:
        if report.job != self.rules.job:
            raise Refused("this launcher serves another job; check --launcher", final=True)
        if report.index >= self.rules.workers:
            allowed = f"0 to {self.rules.workers - 1}"
            raise Refused(f"--index {report.index}: the job has workers {allowed} (spec.workers.replicas)", final=True)
        held = self.members.get(report.index)
        if held is None or held.report.incarnation == report.incarnation:
            return
        if now - held.seen <= TAKEN_SECONDS:
            raise Refused(
                f"index {report.index} is held by a worker at {held.report.address}; give each worker its own --index",
                final=False,
            )
        if self.running and self._takes_part(report.index):
            self._end_generation(Ending(f"worker {report.index} was replaced"))

    def _adopt(self, report: Report, now: float) -> None:
        """A launcher that was restarted finds ranks running, and lets them."""
        self.generation, self.running, self._waiting_since = report.generation, True, now
        self._team, self._layout, self._movement, self._began = None, {}, Movement(now), now
        self._budget.begin_at(max((rank.step for rank in report.progress), default=0))
        self.number += 1

    def _judge_adopted(self) -> None:
        """Whether all workers of the generation that was found running have come back."""
        team = [member.report for index, member in self.members.items() if self._takes_part(index)]
        back, ranks = sum(report.slots for report in team), max((report.ranks for report in team), default=1)
        late = self.now - self._waiting_since > LOST_SECONDS
        if back >= ranks:
            self._team = frozenset(report.index for report in team)
        elif not self.missing:
            anew = min((index for index in self.members if not self._takes_part(index)), default=None)
            words = f"{back} of {ranks} ranks came back to this launcher"
            self._end_generation(Ending(words if anew is None else f"worker {anew} was started anew"))
        elif late:
            self._end_generation(Ending(f"worker {self.missing[0]} did not come back to this launcher"))

    def _takes_part(self, index: int) -> bool:
        """Whether a worker that is there has ranks in this generation, as far as is known."""
        if self._team is not None:
            return index in self._team
        report = self.members[index].report
        return report.generation == self.generation and report.state != "idle"

    def _is_spare(self, index: int) -> bool:
        """Whether the ranks that run began without this worker."""
        return self.running and self._team is not None and index not in self._team

    def _hear_progress(self, report: Report, now: float) -> None:
        leads = min((index for index in self.members if self._takes_part(index)), default=0)
        self._budget.hear(report.progress)
        self._movement.hear(report, now, leads=report.index == leads)
        self.progress = self._movement.latest or self.progress

    def _account(self, report: Report, before: Member | None) -> None:
        """Count the time since the agent's report before, by what its ranks do now."""
        self.device_time.recall(report.spent)
        same = before is not None and before.report.incarnation == report.incarnation
        since = before.report.held if before is not None and same else report.counted
        current = self.running and report.generation == self.generation and report.state != "idle"
        stepped = any(rank.step for rank in report.progress)
        self.device_time.add(
            "pending" if not current else "productive" if stepped else "starting",
            report.slots * max(0.0, report.held - since),
        )

    def _hear_facts(self, report: Report) -> None:
        if report.facts is None:
            return
        saved = report.facts.checkpoint
        if saved is not None and saved.step is not None and report.progress:
            self.device_time.saved(saved.step, reached=report.progress[0].step)
        self.facts = self.facts.model_copy(update=report.facts.told())

    def _judge_ends(self) -> None:
        ended = [member.report for member in self.members.values() if self._has_told(member.report)]
        ends = [end for member in self.members.values() for end in self._ends_of(member.report)]
        all_ended = self._team is not None and len(ended) == len(self._team) and bool(ends)
        asked = self.stopping is not None or self.regrouping
        if all_ended and all(end.done for end in ends):
            self._finish(0, "done")
        elif all_ended and asked and all(end.done or stopped(end) for end in ends):
            if self.stopping is not None:
                self._finish(PREEMPTED, f"stopped: {self.stopping}; the same command goes on from the last checkpoint")
            else:
                self._gather_anew(backoff=0.0)
        else:
            ending = judge(ends, all_ended=all_ended, stopping=asked)
            if ending is not None:
                self._end_generation(ending)

    def _has_told(self, report: Report) -> bool:
        """Whether it is known how this worker's ranks ended: the others' end is waited for, and the agent is not."""
        return self.running and report.state == "ended" and report.generation == self.generation

    def _ends_of(self, report: Report) -> list[RankEnd]:
        return report.ends if report.generation == self.generation else []

    def _find_hang(self) -> None:
        limit = self._movement.hang(self.now, self.rules.hang_seconds)
        if limit is not None:
            assert self._movement.latest is not None
            self._stacks = True
            after = self._movement.latest.step
            self._end_generation(Ending(f"no step for {limit:.0f} s after step {after}", hang=True))

    def _regroup(self) -> None:
        """Have the ranks save and end once workers are there that they began without, unless they are almost done."""
        if self.regrouping or self.stopping is not None or self._team is None or self.members.keys() <= self._team:
            return
        left = self._movement.left
        if self.now - self._began > GATHER_SECONDS and (left is None or left > GATHER_SECONDS):
            self.regrouping = True
            self.number += 1

    def _end_generation(self, ending: Ending) -> None:
        """The generation is over; another one follows unless the failure is for good or the budget is spent."""
        self.failure = ending
        self.device_time.lose()
        backoff = self._budget.fail()
        if ending.permanent is not None:
            self._finish(ending.permanent, ending.message)
        elif self.stopping is not None:
            # As if it had saved: a node that was gone before its worker had must not fail the job for good.
            where = "the same command goes on from the last checkpoint"
            self._finish(PREEMPTED, f"{ending.message}, while it was stopping; {where}")
        elif backoff is None:
            self._finish(RETRYABLE, f"{ending.message}; {self.rules.restarts} restarts in a row gained no step")
        else:
            self._gather_anew(backoff=backoff)

    def _gather_anew(self, *, backoff: float) -> None:
        self.running = self.regrouping = False
        self.generation += 1
        self._not_before, self._waiting_since = self.now + backoff, self.now
        self.number += 1

    @property
    def _patience(self) -> float:
        """Seconds for which those that are enough wait for the others."""
        limit = self.rules.join_seconds
        return GATHER_SECONDS if limit is None else min(GATHER_SECONDS, limit)

    def _gather(self) -> None:
        """Start the ranks once every worker is there, or enough have waited for the others, and no rank still runs."""
        if self.stopping is not None:
            self._finish(PREEMPTED, f"stopped: {self.stopping}; no rank was running")
            return
        busy = any(member.report.state == "running" for member in self.members.values())
        if self._stacks and not busy:
            assert self.failure is not None
            self._stacks = False
            reports = [member.report for member in self.members.values()]
            ends = [end for report in reports if report.generation == self.generation - 1 for end in report.ends]
            self.failure = Ending(f"{self.failure.message}; {odd_one(ends)}", hang=True)
        limit, waited = self.rules.join_seconds, self.waited()
        enough = len(self.members) >= self.rules.least
        if not enough and limit is not None and waited > limit:
            self._finish(RETRYABLE, f"{self.waiting_for()} for {limit:.0f} s, longer than policy.pendingDeadline")
            return
        if self.missing and not (enough and waited >= self._patience):
            return
        if busy or self.now < self._not_before:
            return
        self.generation = max(1, self.generation, *(m.report.generation + 1 for m in self.members.values()))
        self.running, self._movement = True, Movement(self.now)
        self._team, self._layout, self._began = frozenset(self.members), self._lay_out(), self.now
        self.number += 1

    def _lay_out(self) -> dict[int, Ranks]:
        reports = [member.report for _, member in sorted(self.members.items())]
        world_size = sum(report.slots for report in reports)
        layout, first = {}, 0
        for report in reports:
            layout[report.index] = Ranks(
                first=first, world_size=world_size, master_address=reports[0].address, master_port=reports[0].port
            )
            first += report.slots
        return layout

    def _finish(self, exit_code: int, message: str) -> None:
        self.outcome = Outcome(exit_code, message)
        self.running = False
        self.number += 1
