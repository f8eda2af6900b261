"""Samples trees with vLLM: every chain and every branch is a request, and vLLM's prefix cache holds what they share.

Before each step the engine gets the weights as they are, through a folder of the run: the adapter, or the whole model.
A chain's seed is fixed by its request's key; still the answers are not equal bit for bit from run to run, as what vLLM
computes depends in its last digits on what it computes beside it.
"""

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from ytrain.models.folder import check_writable, full_disk_told
from ytrain.models.language_model import LanguageModel
from ytrain.rl.chains import Chain, PromptChains, as_tree
from ytrain.rl.rollout import Request, Rolled
from ytrain.rl.vllm.messages import EngineSettings, Prefix, Question, Weights
from ytrain.rl.vllm.process import VllmProcess
from ytrain_api.errors import Diverged, TrainingError
from ytrain_api.rl import Rollout, Tree

GPU_MEMORY_UTILIZATION = 0.4
"""Of vLLM by default: less than half, as gradients, optimizer and activations are the trainer's."""

SEED_BITS = 53
"""As many as a uniform number has."""


@contextmanager
def vllm_rollout(
    model: LanguageModel,
    base: Path,
    rollout: Rollout,
    tree: Tree | None,
    stop_ids: Sequence[int],
    *,
    max_tokens: int,
    folder: Path,
    whole: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator["VllmRollout"]:
    """The engine, its process running; ended and its weights removed at the end, whatever happens.

    Args:
        base: folder of the model that was loaded.
        stop_ids: tokens that end an answer.
        max_tokens: of the longest prompt and answer together.
        folder: of this rank alone. vLLM's log stays in it.
        whole: opens what lets every rank use all weights alone, as `Engine.whole` does.

    Raises:
        SpecError: vLLM cannot load the model, or the folder cannot be written.
        TransientError: vLLM's process was killed.
        TrainingError: the disk is full.
    """
    folder = folder.resolve()  # a process reads it that may work elsewhere
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    check_writable(folder, field="--workdir")
    weights = _WeightsFolder(model, folder, whole)
    process: VllmProcess | None = None
    try:
        settings = EngineSettings(
            model=str(base.resolve() if model.peft is not None else weights.write().folder),
            dtype=str(model.compute_dtype).removeprefix("torch."),
            vocabulary=model.module.config.get_text_config().vocab_size,
            max_tokens=max_tokens,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            stop_ids=tuple(stop_ids),
            lora_rank=model.peft.peft_config["default"].r if model.peft is not None else None,
            gpu_memory_utilization=rollout.gpu_memory_utilization or GPU_MEMORY_UTILIZATION,
        )
        with _full_disk_told(folder):
            process = VllmProcess(settings, folder)
        yield VllmRollout(process, weights, rollout, tree, stop_ids)
    finally:
        if process is not None:
            process.close()
        weights.remove()
        shutil.rmtree(folder / "tmp", ignore_errors=True)


class VllmRollout:
    """Samples with vLLM; made by `vllm_rollout`."""

    def __init__(
        self,
        process: VllmProcess,
        weights: "_WeightsFolder",
        rollout: Rollout,
        tree: Tree | None,
        stop_ids: Sequence[int],
    ) -> None:
        self._process = process
        self._weights = weights
        self._rollout = rollout
        self._tree = tree
        self._stop_ids = frozenset(stop_ids)

    def sample(self, requests: Sequence[Request]) -> Rolled:
        """See `RolloutEngine`."""
        weights = self._weights.write()
        groups = [PromptChains(request, self._rollout.max_new_tokens) for request in requests]
        rows = [(group, group.chain()) for group in groups for _ in range(self._rollout.chains)]
        forwarded, branches = self._decode(rows, weights), 0
        for number in range(1, self._tree.rounds + 1 if self._tree is not None else 1):
            assert self._tree is not None
            forks = [fork for group in groups for fork in group.fork(self._tree.forks, number)]
            rows = [(fork.group, fork.branch()) for fork in forks for _ in range(self._tree.branches)]
            branches += len(rows)
            forwarded += self._decode(rows)
        self._weights.remove()
        return Rolled(
            trees=[as_tree(group.request.prompt_ids, group.chains) for group in groups],
            forwarded=forwarded,
            branches=branches,
            pruned=0,
        )

    def _decode(self, rows: Sequence[tuple[PromptChains, Chain]], weights: Weights | None = None) -> int:
        """Sample the chains to their ends and add them to their prompts; returns the tokens that were forwarded."""
        prefixes = [
            Prefix(
                ids=[*group.request.prompt_ids.tolist(), *chain.answer(chain.start)],
                seed=int(chain.draws[0] * 2**SEED_BITS),
                max_new_tokens=self._rollout.max_new_tokens - chain.start,
            )
            for group, chain in rows
        ]
        forwarded = 0
        if not rows:
            return forwarded
        with _full_disk_told(self._weights.folder):
            answers = self._process.ask(Question(weights=weights, prefixes=prefixes))
        for (group, chain), prefix, answer in zip(rows, prefixes, answers, strict=True):
            if not np.isfinite(answer.log_p).all():
                raise Diverged(
                    "the model's logits are not finite while it answers; lower optimization.learningRate or set "
                    "model.precision: float32"
                )
            chain.tokens, chain.log_p, chain.entropy = answer.tokens, answer.log_p.tolist(), answer.entropy.tolist()
            chain.ended = chain.tokens[-1] in self._stop_ids
            group.chains.append(chain)
            # The last token of an answer is never forwarded.
            forwarded += len(prefix.ids) - answer.cached + len(answer.tokens) - 1
        return forwarded


class _WeightsFolder:
    """Hands the weights over as files, one set at a time."""

    def __init__(self, model: LanguageModel, folder: Path, whole: Callable[[], AbstractContextManager[None]]) -> None:
        self._model = model
        self.folder = folder
        self._whole = whole
        self._written = 0

    def write(self) -> Weights:
        """Write the weights as they are now; all ranks call it.

        Raises:
            TrainingError: the folder cannot be written any more, or the disk is full.
        """
        self.remove()
        self._written += 1
        folder = self.folder / f"weights-{self._written}"
        told = full_disk_told(f"{folder} could not be written; free space, then run the same command again")
        with told, self._whole():
            try:
                folder.mkdir(parents=True)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                raise TrainingError(
                    f"{folder} cannot be made any more: {error.strerror}; let this user write there, then run the "
                    "same command to go on"
                ) from error
            if self._model.peft is not None:
                self._model.peft.save_pretrained(folder, selected_adapters=["default"])
            else:
                _write_model(self._model, folder)
        return Weights(number=self._written, folder=str(folder))

    def remove(self) -> None:
        """Remove what was written last."""
        shutil.rmtree(self.folder / f"weights-{self._written}", ignore_errors=True)


def _full_disk_told(folder: Path) -> AbstractContextManager[None]:
    return full_disk_told(
        f"vllm cannot write in {folder} or in its caches; free space, then run the same command to go on"
    )


def _write_model(model: LanguageModel, folder: Path) -> None:
    """Write the whole model in its compute type, with an output head of its own also where it is the embedding."""
    module: Any = model.module
    state = {name: tensor.to(model.compute_dtype) for name, tensor in module.state_dict().items()}
    module.should_save_on_this_rank = bool  # by itself only rank 0 would; here each has a folder of its own
    try:
        module.save_pretrained(folder, state_dict=state, max_shard_size="1TB")
    finally:
        del module.should_save_on_this_rank
    head = module.get_output_embeddings()
    if head.weight is module.get_input_embeddings().weight:  # else it is among what was written
        name = next(name for name, part in module.named_modules() if part is head)
        weight_VD = head.weight.detach().to(model.compute_dtype)
        save_file({f"{name}.weight": weight_VD.contiguous()}, folder / "head.safetensors")
