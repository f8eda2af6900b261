"""Turns texts into token ids, in batches on all cores; with a label mask where only parts of a text are learned.

No special token is added and nothing is cut or padded. It knows nothing of transformers, whose import is not wanted in
the processes that encode texts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ytrain.data.records import Rendered

Tokens = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Encoder:
    """Encodes with a copy of a fast tokenizer.

    Args:
        vocabulary: the tokenizer as JSON, as `tokenizer.json` holds it.
    """

    def __init__(self, vocabulary: str) -> None:
        self._backend = Tokenizer.from_str(vocabulary)
        self._backend.no_truncation()
        self._backend.no_padding()
        # A byte-level post-processor trims spaces off the offsets (trim_offsets), which would lose labels.
        self._backend.post_processor = None

    def encode(self, batch: Sequence[Rendered]) -> list[tuple[Tokens, Mask]]:
        """Token ids `[T]` and label masks `[T]` of each text.

        A token that holds any supervised character is a label, except the first token, which nothing predicts.
        """
        encodings = self._backend.encode_batch([rendered.text for rendered in batch], add_special_tokens=False)
        samples = []
        for rendered, encoding in zip(batch, encodings, strict=True):
            offsets = encoding.offsets
            mask = np.zeros(len(offsets), dtype=np.bool_)
            for start, end in rendered.spans:
                first = bisect_right(offsets, start, key=_end)
                last = bisect_left(offsets, end, key=_start)
                mask[first:last] = True
            mask[:1] = False
            samples.append((np.asarray(encoding.ids, dtype=np.int32), mask))
        return samples

    def encode_texts(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids `[T]` of each text; without offsets, which take as long as the rest."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]


def _start(offset: tuple[int, int]) -> int:
    return offset[0]


def _end(offset: tuple[int, int]) -> int:
    return offset[1]
