"""What a run tells of its data as it reads them, and that all ranks read the same."""

from ytrain.engine.world import World
from ytrain.methods.facts import data_status
from ytrain.methods.inputs import Inputs
from ytrain.report.live import Progress
from ytrain.training.stop import StopRequest
from ytrain_api.errors import DataError, Preempted
from ytrain_api.protocol import Facts


def tell_tokenising(progress: Progress, stop: StopRequest, words: str) -> None:
    """Show how far it is.

    Raises:
        Preempted: a stop was asked for.
    """
    progress.activity(f"tokenising, {words}")
    if stop.signal is not None:
        raise Preempted(f"stopped by {stop.signal.name} while tokenising")


def check_same_data(inputs: Inputs, world: World) -> None:
    """Raises:
    DataError: a rank reads other data than rank 0.
    """
    digests = world.gather(inputs.train.report.digest)
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise DataError(
            f"spec.data.train: rank {others[0]} reads other data than rank 0; "
            "give every worker the same files, such as one shared volume"
        )


def tell_inputs(inputs: Inputs, progress: Progress, method: str) -> None:
    """Show the account of the training data, also in the status of the job."""
    report = inputs.train.report
    done = "scored" if method == "corpus" else "learned"
    what = (
        f"{report.samples:,} prompts"
        if method == "rl"
        else f"{report.samples:,} samples, {report.tokens:,} tokens, {report.supervised_tokens:,} of them {done}"
    )
    progress.note(f"{what}; {report.skipped} of {report.read} records skipped")
    for skipped in report.first_skipped:
        progress.note(f"  skipped {skipped}")
    if inputs.ignored_files:
        progress.note(f"not data, ignored: {', '.join(inputs.ignored_files[:5])}")
    progress.found(Facts(data=data_status(report.to_json())))
