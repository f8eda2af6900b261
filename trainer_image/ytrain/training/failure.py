"""Writes down how a run failed: `result.json` and the report, whoever found the failure."""

from contextlib import suppress

from ytrain.models.folder import full_disk_told
from ytrain.report.page import write_report
from ytrain.training.run_folder import RunFolder, write_json
from ytrain_api import JobFile
from ytrain_api.errors import TrainingError, YTrainError

STATES = {143: "Preempted"}
"""State that result.json records for an exit code; `Failed` for the others."""


def record_failure(folder: RunFolder, job_file: JobFile, error: YTrainError) -> None:
    """Record the failure; a full disk then is passed over, as the first failure is the one to tell."""
    failure = {"kind": type(error).__name__, "message": str(error), "exitCode": error.exit_code}
    metadata = job_file.job.metadata
    with suppress(TrainingError), full_disk_told(f"{folder.path} cannot hold more"):
        write_json(
            folder.result,
            {
                "job": metadata.name,
                "uid": metadata.uid,
                "state": STATES.get(error.exit_code, "Failed"),
                "failure": failure,
            },
        )
        write_report(folder.path)
