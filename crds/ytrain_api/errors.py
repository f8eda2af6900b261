"""The few kinds of failure that users meet, each with the exit code that a script or the operator reads.

Whoever finds the fault raises one of these with a message that says what, where, what is allowed and what to do next;
the command line turns it into an exit code, the launcher into a failure class.
"""


class YTrainError(Exception):
    """Base of every failure that is told to the user without a traceback."""

    exit_code = 4


class SpecError(YTrainError):
    """The job file is wrong; nothing was started."""

    exit_code = 2


class DataError(YTrainError):
    """The training or evaluation data cannot be used as they are."""

    exit_code = 3


class TrainingError(YTrainError):
    """Training failed for good: trying again without a change gives the same result."""

    exit_code = 4


class Diverged(TrainingError):
    """The loss, a gradient or what the model says is no number any more."""


class RewardError(TrainingError):
    """No answer gets a reward."""


class TransientError(YTrainError):
    """Something outside the job failed; the same job may succeed when tried again."""

    exit_code = 5


class Preempted(YTrainError):
    """The run was asked to stop and left a checkpoint to resume from."""

    exit_code = 143
