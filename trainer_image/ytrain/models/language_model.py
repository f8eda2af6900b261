"""A causal language model as training sees it: hidden states of a packed row, the output head, and the start model.

Wraps a transformers model, with a PEFT adapter or without; knows nothing of losses and optimizers.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from ytrain.data.rows import Row
from ytrain.models.attention import SEGMENT_ATTENTION
from ytrain.objective.head import Head

START_ADAPTER = "start"
"""Name of the frozen copy of an adapter that training continues from."""


class HiddenStates(Protocol):
    """What the objective needs of a model: current, start or teacher."""

    def hidden(self, row: Row) -> Tensor: ...
    def head(self) -> Head: ...


class LanguageModel:
    """A causal language model, optionally with a LoRA adapter (`peft`) on top of frozen weights (`module`)."""

    def __init__(
        self, module: PreTrainedModel, *, peft: Any = None, compute_dtype: torch.dtype = torch.float32
    ) -> None:
        self.module = module
        self.peft = peft
        self.compute_dtype = compute_dtype
        transformer: Any = module
        self._decoder, self._linear = transformer.get_decoder(), transformer.get_output_embeddings()
        module.set_attn_implementation(SEGMENT_ATTENTION)

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def top(self) -> torch.nn.Module:
        """The outermost module: what is saved, and what switches between training and evaluation."""
        return self.peft if self.peft is not None else self.module

    def hidden(self, row: Row) -> Tensor:
        """Final hidden states `[T, D]` of a row, after the last norm; a token sees those before it in its sample."""
        with self.autocast():
            output = self._decoder(
                input_ids=row.input_ids_1T,
                position_ids=row.position_ids_1T,
                node_boundaries=row.boundaries,
                node_paths=row.paths,
                node_masks=row.masks,
                made_masks={},
                use_cache=False,
            )
        hidden_TD: Tensor = output.last_hidden_state[0]
        return hidden_TD

    def cached_hidden(self, ids_BT: Tensor, padding_B: Tensor, cache: Cache) -> Tensor:
        """Final hidden states `[B, D]` of the last of some tokens that follow those in `cache`, which takes them up.

        To be used while `generating`. Rows are padded on the left by `padding_B` tokens, those in the cache included.
        """
        cached = cache.get_seq_length()
        end = cached + ids_BT.shape[1]
        positions_T = torch.arange(cached, end, device=self.device)
        padded = bool(padding_B.any())
        output = self._decoder(
            input_ids=ids_BT,
            attention_mask=(torch.arange(end, device=self.device) >= padding_B[:, None]).long() if padded else None,
            position_ids=(positions_T - padding_B[:, None]).clamp_(min=0),
            past_key_values=cache,
            use_cache=True,
        )
        hidden_BD: Tensor = output.last_hidden_state[:, -1]
        return hidden_BD

    def head(self) -> Head:
        """The output head; logits are computed by the objective, in chunks."""
        linear, config = self._linear, self.module.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        return Head(
            weight_VD=linear.weight,
            bias_V=linear.bias,
            scale=scale,
            soft_cap=getattr(config, "final_logit_softcapping", None),
        )

    def autocast(self) -> Any:
        """Computes in the compute type; master weights keep their own."""
        if self.compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that training moves, by name."""
        return {name: parameter for name, parameter in self.top.named_parameters() if parameter.requires_grad}

    def disable_dropout(self) -> None:
        """Let training compute what evaluation computes; the configuration that is saved stays."""
        for module in self.top.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name, value in list(vars(module).items()):
                if "dropout" in name and isinstance(value, float):  # what attention modules hand to their kernels
                    setattr(module, name, 0.0)

    @contextmanager
    def generating(self) -> Iterator[PreTrainedModel]:
        """The model for `generate`, in evaluation mode and with transformers' own attention."""
        was_training = self.top.training
        self.module.set_attn_implementation("sdpa" if self.module._supports_sdpa else "eager")
        self.top.eval()
        try:
            with torch.no_grad(), self.autocast():
                yield self.module
        finally:
            self.top.train(was_training)
            self.module.set_attn_implementation(SEGMENT_ATTENTION)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode (no dropout) without gradients."""
        was_training = self.top.training
        self.top.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.top.train(was_training)


class StartModel:
    """The model as it was before training: the adapter switched off, or the adapter that training continued from.

    It shares every weight with `current`, so it costs a forward pass and no memory.
    """

    def __init__(self, current: LanguageModel) -> None:
        self._current = current

    def hidden(self, row: Row) -> Tensor:
        """Final hidden states `[T, D]`; no gradient."""
        with self._current.evaluating(), self._switched():
            return self._current.hidden(row)

    def head(self) -> Head:
        """The output head; an adapter that training continued from may bring one of its own (`modules_to_save`)."""
        with self._switched():
            return self._current.head()

    @contextmanager
    def _switched(self) -> Iterator[None]:
        peft = self._current.peft
        if START_ADAPTER not in peft.peft_config:
            with peft.disable_adapter():
                yield
            return
        trained = peft.active_adapter
        peft.set_adapter(START_ADAPTER, inference_mode=True)
        try:
            yield
        finally:
            peft.set_adapter(trained)


class FrozenModel:
    """A second model that is only asked: the teacher, or the start of a full training."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        model.top.requires_grad_(False).eval()

    def hidden(self, row: Row) -> Tensor:
        """Final hidden states `[T, D]`; no gradient."""
        with torch.no_grad():
            return self._model.hidden(row)

    def head(self) -> Head:
        return self._model.head()
