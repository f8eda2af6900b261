"""A check on the real model, before training, that the packed forward pass computes what the model computes.

Whatever the architecture (sliding windows, recurrent layers, odd heads), samples packed in one row, two with a common
beginning, and read through our head must give the logits that transformers gives for each alone; otherwise training
would be silently wrong.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from traceback import extract_tb
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from ytrain.data.rows import LEAST_SHARED, Segment, build_row
from ytrain.models.language_model import LanguageModel
from ytrain_api.errors import SpecError

RELATIVE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
COMMON = max(LEAST_SHARED.values())
"""Tokens with which the last sample begins as the first does."""
PROBE_LENGTHS = (COMMON + 12, 17)
REACHES = ("sliding_window", "sliding_window_size", "attention_chunk_size", "index_topk")
"""Names by which configurations and layers of transformers know how many tokens an attention sees at most."""
PROBE_REACH = COMMON // 2
"""Such limits during the check: at their own, of thousands of tokens, its samples would not show who respects them."""
OTHER_MODEL = "take a model of another architecture (docs/how-it-trains.md)"


class _Misfit(Exception):
    """What is wrong with a model that does not fit: the end of a sentence that begins with its class."""


@dataclass(frozen=True)
class _Probe:
    input_ids: np.ndarray
    supervised: np.ndarray


def check_packed_forward(
    model: LanguageModel, *, packing: bool, field: str = "spec.model.source", separable: bool = True
) -> float:
    """The largest relative difference of the logits.

    Args:
        packing: whether rows hold more than one sample.
        separable: whether the job could do without packing.

    Raises:
        SpecError: the packed pass fails, or the difference is too large to be rounding, or logits are not finite.
    """
    random = np.random.default_rng(0)
    vocabulary = model.module.config.get_text_config().vocab_size
    first, second = (random.integers(0, vocabulary, length).astype(np.int32) for length in PROBE_LENGTHS)
    alone, packed = [first], [first, second, np.concatenate([first[:COMMON], second])]
    try:
        return _difference(model, packed if packing else alone, field)
    except _Misfit as misfit:
        if not packing:
            remedy = OTHER_MODEL
        elif not separable:
            remedy = f"this method needs several samples in a row; {OTHER_MODEL}"
        else:
            remedy = "set data.packing: false" if _fits(model, alone, field) else OTHER_MODEL
        raise SpecError(f"{field}: {type(model.module).__name__} {misfit}; {remedy}") from misfit


def unfit(model: LanguageModel, error: Exception, field: str = "spec.model.source") -> SpecError:
    """What to tell of a model whose code ends in an error where it meets ours."""
    return SpecError(f"{field}: {type(model.module).__name__} {_ended(error)}; {OTHER_MODEL}")


def rescaled_beyond(config: PretrainedConfig) -> int | None:
    """Tokens of a sample from which on all positions of its row are scaled otherwise, those of shorter samples too;
    None where the length of a row does not matter. So it is with dynamic NTK and LongRoPE (Phi-3)."""
    text = config.get_text_config()
    scaling = getattr(text, "rope_parameters", None) or {}
    lengths = [
        kind.get("original_max_position_embeddings", text.max_position_embeddings)
        if kind["rope_type"] == "longrope"
        else text.max_position_embeddings
        for kind in (scaling, *scaling.values())  # of the model, or of each type of layers
        if isinstance(kind, dict) and kind.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(lengths, default=None)


def _difference(model: LanguageModel, samples: Sequence[np.ndarray], field: str) -> float:
    probes = [_Probe(ids, np.arange(len(ids)) > 0) for ids in samples]
    row = build_row(probes, [Segment(i, 0, len(ids) - 1) for i, ids in enumerate(samples)], model.device)
    try:
        with _short_reaches(model.module):
            with model.evaluating():
                hidden_TD = model.hidden(row)[row.label_rows_R]
                ours_TV = model.head().cast(model.compute_dtype).logits(hidden_TD.to(model.compute_dtype))
            with model.generating() as module:
                alone = [module(input_ids=_one_row(ids[:-1], model.device)).logits[0].float() for ids in samples]
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # the device's fault, not the model's
        raise
    except Exception as error:
        raise _Misfit(_ended(error)) from error
    expected_TV = torch.cat(alone)
    if not expected_TV.isfinite().all():
        raise SpecError(
            f"{field}: the model's logits are not finite in {model.compute_dtype}: its weights hold NaN or "
            "infinity, or overflow; get the weights anew, or try model.precision: float32"
        )
    difference = ((ours_TV - expected_TV).abs().max() / expected_TV.abs().max()).item()
    if not difference <= RELATIVE_TOLERANCE[model.compute_dtype]:
        where = "in a packed row than alone" if len(samples) > 1 else "than by transformers' own forward pass"
        raise _Misfit(f"gives other logits {where} (relative difference {difference:.2g})")
    return difference


def _fits(model: LanguageModel, samples: Sequence[np.ndarray], field: str) -> bool:
    try:
        _difference(model, samples, field)
    except _Misfit:
        return False
    return True


def _ended(error: Exception) -> str:
    place = extract_tb(error.__traceback__)[-1]
    return (
        f"cannot be trained: its forward pass ends in {type(error).__name__}: {shorten(str(error), 200)} "
        f"({Path(place.filename).name}, line {place.lineno})"
    )


@contextmanager
def _short_reaches(module: PreTrainedModel) -> Iterator[None]:
    """Holds every limit of an attention's reach at `PROBE_REACH`, in what masks and layers are made from alike."""
    owners: list[Any] = [owner for part in module.modules() for owner in (part, getattr(part, "config", None))]
    attributes = {id(owner): vars(owner) for owner in owners if owner is not None}.values()
    kept = [(of, name, of[name]) for of in attributes for name in REACHES if (of.get(name) or 0) > PROBE_REACH]
    try:
        for of, name, _ in kept:
            of[name] = PROBE_REACH
        yield
    finally:
        for of, name, value in kept:
            of[name] = value


def _one_row(ids: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None].to(device)
