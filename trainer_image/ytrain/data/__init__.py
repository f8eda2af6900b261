"""From files of records to token samples with label masks, and from samples to global steps and packed rows.

Everything here takes plain values (paths, settings, a tokenizer), never the job: the methods translate.
"""

from ytrain.data.accounting import DataReport, Skipped
from ytrain.data.dataset import Sample, TokenDataset
from ytrain.data.order import plan_epoch
from ytrain.data.packing import pack
from ytrain.data.preparation import DataSource, PreparedData, prepare
from ytrain.data.preview import runs
from ytrain.data.reading import SUFFIXES
from ytrain.data.tokenising import TokenSettings

__all__ = [
    "SUFFIXES",
    "DataReport",
    "DataSource",
    "PreparedData",
    "Sample",
    "Skipped",
    "TokenDataset",
    "TokenSettings",
    "pack",
    "plan_epoch",
    "prepare",
    "runs",
]
