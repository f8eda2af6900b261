"""The contract of ytrain: the YTrainJob as models, its rules, and the loader of its files.

The trainer and the operator both read this package; it knows neither of them.
"""

from ytrain_api.check import parse_job
from ytrain_api.job import API_VERSION, KIND, YTrainJob
from ytrain_api.job_file import JobFile, config_digest, dump_job, load_job

__all__ = [
    "API_VERSION",
    "KIND",
    "JobFile",
    "YTrainJob",
    "config_digest",
    "dump_job",
    "load_job",
    "parse_job",
]
