"""A file of 1 GB is read, digested and tokenised in flat memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.unit

MEASURE = """
import json, resource, sys
from pathlib import Path
from transformers import PreTrainedTokenizerFast
from ytrain.data import DataSource, TokenSettings, prepare
folder = Path(sys.argv[1])
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
def run(name):
    source = DataSource(((name, folder / name),))
    return prepare([source], tokenizer, TokenSettings(max_tokens=100), folder / "cache").report.used
run("small.jsonl")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
used = run("large.jsonl")
print(json.dumps({"used": used, "grown": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}))
"""


def test_memory_stays_flat_over_a_gigabyte(
    tmp_path: Path, make_tokenizer: Callable[[str | None], PreTrainedTokenizerFast]
) -> None:
    make_tokenizer("smollm2").save_pretrained(tmp_path)
    line = json.dumps({"prompt": "Hi there", "response": "Hello", "scan": "0" * (1 << 20)}) + "\n"
    (tmp_path / "small.jsonl").write_text(line * 3)
    large = tmp_path / "large.jsonl"
    with large.open("w") as file:
        for _ in range(1024):
            file.write(line)
    try:
        assert large.stat().st_size > 1 << 30
        command = [sys.executable, "-c", MEASURE, str(tmp_path)]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        large.unlink()
    assert measured["used"] == 1024
    assert measured["grown"] < 64 << 10  # KiB


READ = """
import json, resource, sys
from pathlib import Path
import numpy as np
from ytrain.data import DataReport, Sample, TokenDataset
from ytrain.data.cache import TOKENS, EntryWriter
from ytrain.data.order import plan_rows
folder = Path(sys.argv[1]) / "entry"
ids = np.arange(2000, dtype=np.int32)
sample = Sample(ids, ids > 0, "a.txt", 1)
with EntryWriter(folder) as entry:
    entry.write((sample for _ in range(100_000)), ["a.txt"])
    entry.finish(DataReport())
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, size = peak(), (folder / TOKENS).stat().st_size
dataset = TokenDataset([(folder / TOKENS, 1.0)])
order = plan_rows(dataset.lengths, 1, 0, row_tokens=2048)
read = sum(int(np.count_nonzero(dataset[i].input_ids + dataset[i].supervised)) for i in order.samples.tolist())
print(json.dumps({"read": read, "size": size, "grown": peak() - before}))
"""


def test_a_gigabyte_of_tokens_is_planned_and_read_in_flat_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READ, str(tmp_path)]
    try:
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        (tmp_path / "entry/tokens.arrow").unlink()
    assert measured["size"] > 1_000_000_000
    assert measured["read"] == 100_000 * 1999
    assert measured["grown"] < 128 << 10  # KiB
