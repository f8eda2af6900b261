"""What is known of a failure, from whatever knows it: a container's end, the launcher's word, the scheduler's."""

from dataclasses import dataclass

from ytrain_api.protocol import LastWord
from ytrain_api.status import Failure
from ytrain_operator.observed import Observed, Pod

MOST_LINES, LONGEST_LINE = 15, 400
"""Of a log, in a status that everybody reads with the job."""


@dataclass(frozen=True)
class Evidence:
    """A failure before it has a name."""

    text: str = ""
    """Everything that was said of it."""
    kind: str = ""
    """The trainer's word for it, or Kubernetes'."""
    exit_code: int | None = None
    pod: Pod | None = None
    told: Failure | None = None
    """The launcher's own account of the rank that failed."""

    @property
    def last_lines(self) -> list[str]:
        """The end of the log that tells most."""
        lines = self.told.last_lines if self.told and self.told.last_lines else self.log.splitlines()
        return [line[:LONGEST_LINE] for line in lines[-MOST_LINES:]]

    @property
    def log(self) -> str:
        """What the container left behind, unless it is the launcher's own record."""
        message = self.pod.ended.message if self.pod and self.pod.ended else ""
        return "" if message.startswith("{") else message

    def says(self, *words: str) -> bool:
        """Whether any of the words was said, whatever its case."""
        text = f"{self.text}\n{self.log}\n{' '.join(self.last_lines)}".lower()
        return any(word.lower() in text for word in words)


def of_pod(pod: Pod) -> Evidence:
    """How a pod's container ended."""
    assert pod.ended is not None
    return Evidence(text=pod.ended.reason, kind=pod.ended.reason, exit_code=pod.ended.exit_code, pod=pod)


def of_launcher(observed: Observed, word: LastWord) -> Evidence:
    """What the launcher left as its last word, with the rank that it blames."""
    told = word.status.failure if word.status else None
    return Evidence(
        text=word.message,
        kind=(told.failure_class if told else None) or "",
        exit_code=word.exit_code,
        pod=observed.launcher,
        told=told,
    )
