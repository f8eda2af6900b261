"""The life of a run around its method: the work folder, the job's place in it, and a record of how it ended."""

from ytrain.engine.world import World
from ytrain.methods.advice import fields_without_effect
from ytrain.methods.analysis import analyse
from ytrain.methods.availability import check_available
from ytrain.methods.facts import facts_of_finished
from ytrain.methods.inputs import apply_secrets
from ytrain.methods.options import RunOptions
from ytrain.methods.training import train
from ytrain.models.folder import full_disk_told
from ytrain.report.live import Progress
from ytrain.report.page import write_report
from ytrain.training.failure import record_failure
from ytrain.training.run_folder import read_json, run_identity, write_json
from ytrain.training.stop import StopRequest
from ytrain_api import JobFile, config_digest, dump_job
from ytrain_api.errors import YTrainError


def run_job(
    job_file: JobFile,
    options: RunOptions,
    progress: Progress,
    stop: StopRequest,
    world: World | None = None,
    *,
    lock_seconds: float = 0.0,
) -> None:
    """Run a job to its end; called again after a stop it goes on, called again after the end it does nothing.

    Args:
        world: the ranks that train together; every one of them calls this.
        lock_seconds: how long the run folder may be held by another process, such as a rank that is just being ended.

    Raises:
        YTrainError: one of its kinds; the run folder records it.
    """
    check_available(job_file.job)
    apply_secrets(job_file)
    folder, config = options.folder, config_digest(job_file.job)
    world = world or World()
    work = train if job_file.job.spec.corpus is None else analyse
    if not world.leads:
        if not folder.finished(config):
            work(job_file, options, config, progress, stop, world)
        return
    when_full = f"{folder.path} cannot hold more. Free space, then run the same command to go on"
    with full_disk_told(when_full), folder.claimed(wait_seconds=lock_seconds):
        folder.check(run_identity(job_file.job), options.resume)
        if folder.finished(config):
            output = read_json(folder.result)["output"]["path"]
            progress.note(f"{folder.path}: this job is done already; its output is in {output}")
            progress.found(facts_of_finished(folder, job_file.job.spec))
            return
        if ignored := fields_without_effect(job_file.job.spec):
            progress.note(f"warning: {ignored}")
        folder.open(run_identity(job_file.job), dump_job(job_file.job))
        try:
            with full_disk_told(when_full):
                write_json(folder.result, work(job_file, options, config, progress, stop, world))
                progress.found(facts_of_finished(folder, job_file.job.spec))
                if job_file.job.spec.corpus is None:  # a corpus job has written its own page
                    write_report(folder.path)
        except YTrainError as error:
            record_failure(folder, job_file, error)
            raise
