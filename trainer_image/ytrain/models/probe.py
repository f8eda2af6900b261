"""A check on the real model, before training, that the packed forward pass computes what the model computes.

Whatever the architecture (sliding windows, recurrent layers, odd heads), samples packed in one row, two with a common
beginning, and read through our head must give the logits that transformers gives for each alone; otherwise training
would be silently wrong.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PretrainedConfig

from ytrain.data.rows import LEAST_SHARED, Segment, build_row
from ytrain.models.language_model import LanguageModel
from ytrain_api.errors import SpecError

RELATIVE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
COMMON = max(LEAST_SHARED.values())
"""Tokens with which the last sample begins as the first does."""
PROBE_LENGTHS = (COMMON + 12, 17)


@dataclass(frozen=True)
class _Probe:
    input_ids: np.ndarray
    supervised: np.ndarray


def check_packed_forward(model: LanguageModel, *, packing: bool) -> float:
    """The largest relative difference of the logits; `packing` says whether rows hold more than one sample.

    Raises:
        SpecError: the difference is too large to be rounding, or the logits are not finite.
    """
    random = np.random.default_rng(0)
    vocabulary = model.module.config.get_text_config().vocab_size
    samples = [
        _Probe(random.integers(0, vocabulary, length).astype(np.int32), np.arange(length) > 0)
        for length in (PROBE_LENGTHS if packing else PROBE_LENGTHS[:1])
    ]
    if packing:
        begins = np.concatenate([samples[0].input_ids[:COMMON], samples[1].input_ids])
        samples.append(_Probe(begins, np.arange(len(begins)) > 0))
    segments = [Segment(i, 0, len(sample.input_ids) - 1) for i, sample in enumerate(samples)]
    row = build_row(samples, segments, model.device)
    with model.evaluating():
        hidden_TD = model.hidden(row)[row.label_rows_R]
        ours_TV = model.head().cast(model.compute_dtype).logits(hidden_TD.to(model.compute_dtype))
    with model.generating() as module:
        alone = [module(input_ids=_one_row(s.input_ids[:-1], model.device)).logits[0].float() for s in samples]
    expected_TV = torch.cat(alone)
    if not expected_TV.isfinite().all():
        raise SpecError(
            f"spec.model.source: the model's logits are not finite in {model.compute_dtype}: its weights hold NaN or "
            "infinity, or overflow; get the weights anew, or try model.precision: float32"
        )
    difference = ((ours_TV - expected_TV).abs().max() / expected_TV.abs().max()).item()
    if not difference <= RELATIVE_TOLERANCE[model.compute_dtype]:
        kind = type(model.module).__name__
        remedy = "set data.packing: false and try again" if packing else "this architecture is not supported"
        raise SpecError(
            f"spec.model.source: {kind} gives other logits in a packed row than alone "
            f"(relative difference {difference:.2g}); {remedy}"
        )
    return difference


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


def _one_row(ids: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None].to(device)
