"""Writes scored.jsonl and cleaned.jsonl, a record at a time."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from ytrain.corpus.judgement import Judgement, entry
from ytrain.corpus.records import Records
from ytrain.data.dataset import TokenDataset

SCORED, CLEANED = "scored.jsonl", "cleaned.jsonl"


def write_files(
    folder: Path, judgement: Judgement, records: Records, dataset: TokenDataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write both files: every record ranked with its scores; and the originals that are worth training on, in order."""
    with (folder / SCORED).open("w", encoding="utf-8", newline="\n") as out:
        for rank, index in enumerate(judgement.ranked.tolist(), start=1):
            line = {"rank": rank, **entry(judgement, index, records, dataset, tokenizer)}
            out.write(json.dumps(line, ensure_ascii=not _encodable(line)) + "\n")
    with (folder / CLEANED).open("w", encoding="utf-8", newline="\n") as out:
        for index, text in enumerate(records.lines()):
            if index not in judgement.left_out:
                out.write(text)


def _encodable(line: object) -> bool:
    try:
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
