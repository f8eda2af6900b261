"""Plain signs that a record is unlike the rest: its length, its script, its keys, chat markers left in the text."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LOOKED_AT_CHARACTERS = 500
FAR = 5.0
"""Robust deviations of the logarithm of the length from which a record is far longer or shorter than the rest."""
_MARKERS = re.compile(r"<\|[a-z_]+\|>|\[/?INST\]|</?s>|### (?:Response|Instruction):?|<start_of_turn>")


@dataclass(frozen=True)
class Shape:
    """What is kept of a record for comparing it with the others."""

    script: str
    keys: tuple[str, ...]
    marker: str | None


def shape(record: Any, text: str) -> Shape:
    """The shape of one record and its text."""
    letters = Counter(
        unicodedata.name(character, "?").split(" ")[0].split("-")[0]
        for character in text[:LOOKED_AT_CHARACTERS]
        if character.isalpha()
    )
    found = _MARKERS.search(text)
    keys = tuple(sorted(key for key, value in record.items() if value is not None)) if isinstance(record, dict) else ()
    return Shape(letters.most_common(1)[0][0] if letters else "", keys, found.group() if found else None)


def oddities(shapes: Sequence[Shape], tokens: npt.NDArray[np.integer]) -> Mapping[int, list[str]]:
    """Reasons in words, by the index of the record; records that are like the rest are not in it."""
    scripts, keys = Counter(s.script for s in shapes if s.script), Counter(s.keys for s in shapes)
    script = scripts.most_common(1)[0][0] if scripts else ""
    usual = keys.most_common(1)[0][0] if keys else ()
    log = np.log(np.maximum(tokens, 1))
    middle = float(np.median(log))
    deviation = max(1.4826 * float(np.median(np.abs(log - middle))), 0.1)
    found: dict[int, list[str]] = {}
    for number, (mine, length) in enumerate(zip(shapes, tokens.tolist(), strict=True)):
        reasons = []
        if abs(float(log[number]) - middle) > FAR * deviation:
            reasons.append(f"{length:,} tokens, where half of the records have {np.exp(middle):,.0f} or fewer")
        if mine.script and mine.script != script:
            reasons.append(f"mostly {mine.script.capitalize()} letters, the corpus mostly {script.capitalize()}")
        if mine.keys != usual:
            reasons.append(f"keys {', '.join(mine.keys) or 'none'}, most records have {', '.join(usual) or 'none'}")
        if mine.marker:
            reasons.append(f"chat template marker {mine.marker} inside the text")
        if reasons:
            found[number] = reasons
    return found
