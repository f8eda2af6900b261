"""Turns rendered texts into token ids with label masks, in batches on all cores.

No special token is added and nothing is cut or padded: the text holds all that the model will see.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ytrain.data.chat import Rendered
from ytrain_api.errors import SpecError

Tokens = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Encoder:
    """Encodes with a copy of a fast tokenizer.

    Raises:
        SpecError: the tokenizer has no fast version, which alone tells where a token lies in the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise SpecError(
                f"the tokenizer of {tokenizer.name_or_path or 'the model'} ({type(tokenizer).__name__}) has no fast"
                " version: the model folder needs a tokenizer.json."
            )
        self._backend = Tokenizer.from_str(backend.to_str())
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


def _start(offset: tuple[int, int]) -> int:
    return offset[0]


def _end(offset: tuple[int, int]) -> int:
    return offset[1]
