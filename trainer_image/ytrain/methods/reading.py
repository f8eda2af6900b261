"""A run's data as it is read: what is told of it, also in the status of the job, and that all ranks read the same."""

from functools import partial

from ytrain.engine.world import World
from ytrain.methods.facts import data_status
from ytrain.methods.inputs import Inputs, load_inputs
from ytrain.methods.options import RunOptions
from ytrain.models.folder import full_disk_told
from ytrain.report.live import Progress
from ytrain.sources import Sources
from ytrain.training.stop import StopRequest
from ytrain_api import JobFile
from ytrain_api.errors import DataError, Preempted
from ytrain_api.protocol import Facts


def inputs_of_run(
    job_file: JobFile, options: RunOptions, progress: Progress, stop: StopRequest, world: World
) -> Inputs:
    """What a run reads, and the account of it told.

    Raises:
        SpecError, DataError, TransientError: see `load_inputs`.
        Preempted: a stop was asked for.
    """
    folder = options.folder
    sources = Sources(
        claims=options.claims,
        config_maps=job_file.config_maps,
        base_dir=options.base_dir,
        scratch=folder.inputs / str(world.rank),
        cache=options.cache,
        tell=partial(_tell, progress, stop, "fetching"),
    )
    with full_disk_told(
        f"{options.cache} cannot hold what the job reads. Free space there, or name another with --cache"
    ):
        inputs = load_inputs(
            job_file,
            sources,
            cache=options.cache,
            skipped=folder.skipped if world.leads else None,
            tell=partial(_tell, progress, stop, "tokenising"),
        )
    _tell_inputs(inputs, progress, job_file.job.spec.method)
    return inputs


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


def _tell(progress: Progress, stop: StopRequest, doing: str, words: str) -> None:
    progress.activity(f"{doing}, {words}")
    if stop.signal is not None:
        raise Preempted(f"stopped by {stop.signal.name} while {doing}")


def _tell_inputs(inputs: Inputs, progress: Progress, method: str) -> None:
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
