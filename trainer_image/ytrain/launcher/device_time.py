"""The account of a job's device time: what the devices that its workers hold are used for.

Agents say how long they have held theirs, and the state of their ranks says for what. A failure takes back what no
checkpoint holds. The account goes to the agents with every order, and a launcher that is started anew takes the
fullest one that they kept.
"""

from typing import Literal

from ytrain_api.protocol import Spent
from ytrain_api.status import DeviceSeconds

Kind = Literal["productive", "starting", "pending"]


class DeviceTime:
    """The account. `spent` is what launchers before this one have counted."""

    def __init__(self, spent: Spent | None = None) -> None:
        self.spent = spent or Spent()

    def recall(self, kept: Spent | None) -> None:
        """Take over the account that an agent kept, if more is in it than in this one."""
        if kept is not None and kept.total > self.spent.total:
            self.spent = kept

    def add(self, kind: Kind, seconds: float) -> None:
        """Devices were used for `seconds`, times their number."""
        unsaved = self.spent.unsaved + (seconds if kind == "productive" else 0.0)
        self.spent = self.spent.model_copy(update={kind: getattr(self.spent, kind) + seconds, "unsaved": unsaved})

    def saved(self, step: int, *, reached: int) -> None:
        """The newest complete checkpoint is that of `step`, where ranks are at `reached` by now.

        Of the time after the one before, as much is unsaved as of the steps: all steps of a job cost about the same.
        """
        since, unsaved = self.spent.saved_step, self.spent.unsaved
        if step != since and reached > since:
            unsaved *= min(1.0, max(0.0, (reached - step) / (reached - since)))
        self.spent = self.spent.model_copy(update={"unsaved": unsaved, "saved_step": step})

    def lose(self) -> None:
        """Ranks ended without saving."""
        spent = self.spent
        self.spent = spent.model_copy(
            update={
                "productive": max(0.0, spent.productive - spent.unsaved),
                "lost": spent.lost + spent.unsaved,
                "unsaved": 0.0,
            }
        )

    def seconds(self) -> DeviceSeconds:
        """The account in whole seconds, as the job's status shows it."""
        spent = self.spent
        return DeviceSeconds(
            productive=round(spent.productive),
            starting=round(spent.starting),
            lost=round(spent.lost),
            pending=round(spent.pending),
        )
