"""Samples trees with the trained model itself: batched decoding with a key-value cache that forks share.

Chains are sampled first; then, in each round, the tokens of highest entropy are sampled again from the cache of what
precedes them (TreeRL, arXiv 2506.11902). A token is drawn by inverting the cumulative distribution at a number that its
chain has fixed beforehand, so that the answers do not depend on how prompts are batched or spread over ranks.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ytrain.models.language_model import LanguageModel
from ytrain.objective.head import Head
from ytrain.rl.chains import Chain, Fork, PromptChains, as_tree
from ytrain.rl.pruning import clusters, survivors
from ytrain.rl.rollout import Request, Rolled
from ytrain_api.errors import Diverged
from ytrain_api.rl import Pruning, Rollout, Tree

BATCH_CHAINS = 64
"""Chains that are decoded together: on two CPU cores 64 take 3 times as long as 8, so 8 times the answers are cheap."""

KeysAndValues = list[tuple[Tensor, Tensor]]
"""Of each layer `[heads, tokens, head width]`."""


class TransformersRollout:
    """Samples with transformers' forward pass.

    Args:
        stop_ids: tokens that end an answer.
        whole: opens what lets every rank use all weights alone, as `Engine.whole` does.
        beat: called with every token that is decoded.
    """

    def __init__(
        self,
        model: LanguageModel,
        rollout: Rollout,
        tree: Tree | None,
        stop_ids: Sequence[int],
        *,
        whole: Callable[[], AbstractContextManager[None]] = nullcontext,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._model = model
        self._beat = beat
        self._whole = whole
        self._rollout = rollout
        self._tree = tree
        self._stop_ids = frozenset(stop_ids)

    def sample(self, requests: Sequence[Request]) -> Rolled:
        """See `RolloutEngine`."""
        together = max(1, BATCH_CHAINS // self._rollout.chains)
        with self._whole():
            parts = [self._sample(requests[begin : begin + together]) for begin in range(0, len(requests), together)]
        return Rolled(
            trees=[tree for part in parts for tree in part.trees],
            forwarded=sum(part.forwarded for part in parts),
            branches=sum(part.branches for part in parts),
            pruned=sum(part.pruned for part in parts),
        )

    def _sample(self, requests: Sequence[Request]) -> Rolled:
        rounds = self._tree.rounds if self._tree is not None else 0
        with self._model.generating():
            groups = [PromptChains(request, self._rollout.max_new_tokens) for request in requests]
            decoding = _Decoding(self._model, self._rollout, self._stop_ids, self._beat)
            decoding.begin(groups, self._rollout.chains, keep_caches=rounds > 0)
            for number in range(1, rounds + 1):
                assert self._tree is not None
                forks = [fork for group in groups for fork in group.fork(self._tree.forks, number)]
                together = max(1, BATCH_CHAINS // self._tree.branches)
                for begin in range(0, len(forks), together):
                    decoding.branch(
                        forks[begin : begin + together],
                        self._tree.branches,
                        self._tree.pruning,
                        keep_caches=number < rounds,
                    )
        return Rolled(
            trees=[as_tree(group.request.prompt_ids, group.chains) for group in groups],
            forwarded=decoding.forwarded,
            branches=decoding.branches,
            pruned=decoding.pruned,
        )


@dataclass
class _Batch:
    """Chains that are decoded together: a row each, their cached tokens at the right, padding at the left."""

    chains: list[Chain]
    cache: DynamicCache
    padding_B: Tensor
    hidden_BD: Tensor
    """Final hidden states that predict each chain's next token."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep some rows."""
        index = torch.tensor(rows, device=self.padding_B.device, dtype=torch.int64)
        self.cache.batch_select_indices(index)
        self.chains = [self.chains[row] for row in rows]
        self.padding_B, self.hidden_BD = self.padding_B[index], self.hidden_BD[index]


class _Decoding:
    """Decodes the chains of some prompts, and keeps their caches as long as forks may need them."""

    def __init__(
        self, model: LanguageModel, rollout: Rollout, stop_ids: frozenset[int], beat: Callable[[], None]
    ) -> None:
        self._model = model
        self._rollout = rollout
        self._stop_ids = stop_ids
        self._beat = beat
        self._head = at_temperature(model.head(), rollout.temperature).cast(model.compute_dtype)
        self._caches: dict[Chain, KeysAndValues] = {}
        self.forwarded = 0
        self.branches = 0
        self.pruned = 0

    def begin(self, groups: Sequence[PromptChains], chains: int, *, keep_caches: bool) -> None:
        """Sample independent answers, `chains` to every prompt, which is forwarded once."""
        prompts = [torch.from_numpy(group.request.prompt_ids.astype(np.int64)) for group in groups]
        width = max(len(ids) for ids in prompts)
        padding_B = torch.tensor([width - len(ids) for ids in prompts], device=self._model.device)
        ids_BT = torch.stack([torch.nn.functional.pad(ids, (width - len(ids), 0)) for ids in prompts])
        cache = DynamicCache()
        hidden_BD = self._model.cached_hidden(ids_BT.to(self._model.device), padding_B, cache)
        self.forwarded += sum(len(ids) for ids in prompts)
        cache.batch_repeat_interleave(chains)
        for group in groups:
            group.chains = [group.chain() for _ in range(chains)]
        batch = _Batch(
            chains=[chain for group in groups for chain in group.chains],
            cache=cache,
            padding_B=padding_B.repeat_interleave(chains),
            hidden_BD=hidden_BD.repeat_interleave(chains, dim=0),
        )
        self._decode(batch, keep_caches=keep_caches)

    def branch(self, forks: Sequence[Fork], branches: int, pruning: Pruning | None, *, keep_caches: bool) -> None:
        """Sample each forked token anew, `branches` times, with what follows it."""
        rows = [(fork, fork.branch()) for fork in forks for _ in range(branches)]
        self.branches += len(rows)
        batch = self._forked(rows)
        if pruning is not None:
            embeddings = self._decode(batch, steps=pruning.lookahead_tokens, keep_caches=keep_caches)
            siblings = [[chain for _, chain in pairs] for _, pairs in groupby(rows, key=lambda row: row[0])]
            merged: set[Chain] = set()
            for fork, chains in zip(forks, siblings, strict=True):
                merged |= _merge(chains, embeddings, pruning.distance, np.random.default_rng(fork.key))
            self.pruned += len(merged)
            rows = [(fork, chain) for fork, chain in rows if chain not in merged]
            batch.select([row for row, chain in enumerate(batch.chains) if chain not in merged])
        self._decode(batch, keep_caches=keep_caches)
        for fork, chain in rows:
            fork.group.chains.append(chain)

    def _forked(self, rows: Sequence[tuple[Fork, Chain]]) -> _Batch:
        """A batch that begins with the cache of what precedes the forked tokens, but for the last token of it."""
        prefixes = [[*fork.group.request.prompt_ids.tolist(), *chain.answer(chain.start)] for fork, chain in rows]
        lengths = [len(prefix) - 1 for prefix in prefixes]
        width, device = max(lengths), self._model.device
        cache, sources = DynamicCache(), [self._caches[fork.chain] for fork, _ in rows]
        for layer, of_layer in enumerate(zip(*sources, strict=True)):
            keys, values = (
                torch.stack(
                    [
                        torch.nn.functional.pad(source[which][:, :length], (0, 0, width - length, 0))
                        for source, length in zip(of_layer, lengths, strict=True)
                    ]
                )
                for which in (0, 1)
            )
            cache.update(keys, values, layer)
        padding_B = torch.tensor([width - length for length in lengths], device=device)
        ids_B1 = torch.tensor([prefix[-1:] for prefix in prefixes], device=device)
        self.forwarded += len(rows)
        hidden_BD = self._model.cached_hidden(ids_B1, padding_B, cache)
        return _Batch(chains=[chain for _, chain in rows], cache=cache, padding_B=padding_B, hidden_BD=hidden_BD)

    def _decode(self, batch: _Batch, *, keep_caches: bool, steps: int | None = None) -> dict[Chain, Tensor]:
        """Decode the chains to their ends, or for `steps` tokens; those that have ended leave the batch.

        Returns the sum of each chain's final hidden states, over the tokens that were forwarded here, where `steps`
        are given. (Cosine distance knows no difference between a sum and a mean.)
        """
        embeddings: dict[Chain, Tensor] = {}
        taken = 0
        while batch.chains and (steps is None or taken < steps):
            self._beat()
            live = self._draw(batch)
            taken += 1
            if keep_caches:
                for row, chain in enumerate(batch.chains):
                    if row not in live and chain not in self._caches:
                        self._keep(batch, row)
            # A copy of the cache costs about as much as forwarding rows that have ended; and at a pause none may stay.
            if 2 * len(live) <= len(batch.chains) or taken == steps:
                batch.select(live)
            if not batch.chains:
                break
            ids_B1 = torch.tensor([chain.tokens[-1:] for chain in batch.chains], device=self._model.device)
            batch.hidden_BD = self._model.cached_hidden(ids_B1, batch.padding_B, batch.cache)
            self.forwarded += len(live)
            if steps is not None:
                for row, chain in enumerate(batch.chains):
                    if not self._is_done(chain):
                        embeddings[chain] = embeddings.get(chain, 0.0) + batch.hidden_BD[row].float()
        return embeddings

    def _draw(self, batch: _Batch) -> list[int]:
        """Draw the next token of every chain that goes on; returns the rows of those that go on behind it."""
        log_p_BV = self._head.log_probabilities(batch.hidden_BD.to(self._model.compute_dtype))
        p_BV = log_p_BV.exp()
        if p_BV.isnan().any():
            raise Diverged(
                f"the model's logits are not finite in {self._model.compute_dtype} while it answers; lower "
                "optimization.learningRate or set model.precision: float32"
            )
        entropy_B = -(p_BV * log_p_BV).sum(-1)
        going_on = [row for row, chain in enumerate(batch.chains) if not self._is_done(chain)]
        draws = [0.0 if self._is_done(chain) else chain.draws[len(chain.tokens)] for chain in batch.chains]
        token_B1 = drawn(p_BV, torch.tensor(draws, dtype=p_BV.dtype, device=p_BV.device), self._rollout.top_p)
        tokens = token_B1.squeeze(1).tolist()
        log_ps, entropies = log_p_BV.gather(1, token_B1).squeeze(1).tolist(), entropy_B.tolist()
        for row in going_on:
            chain = batch.chains[row]
            chain.tokens.append(tokens[row])
            chain.log_p.append(log_ps[row])
            chain.entropy.append(entropies[row])
            chain.ended = tokens[row] in self._stop_ids
        return [row for row in going_on if not self._is_done(batch.chains[row])]

    def _is_done(self, chain: Chain) -> bool:
        return chain.ended or chain.length >= self._rollout.max_new_tokens

    def _keep(self, batch: _Batch, row: int) -> None:
        """Keep a copy of a chain's cache: all of its tokens but the last, which was never forwarded."""
        padding = int(batch.padding_B[row])
        self._caches[batch.chains[row]] = [
            (layer.keys[row, :, padding:].clone(), layer.values[row, :, padding:].clone())
            for layer in batch.cache.layers
            if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        ]


def at_temperature(head: Head, temperature: float) -> Head:
    """The head whose logits are those of `head` over the temperature."""
    cap = head.soft_cap and head.soft_cap / temperature
    return replace(head, scale=head.scale / temperature, soft_cap=cap)


def drawn(p_BV: Tensor, draws_B: Tensor, top_p: float) -> Tensor:
    """Tokens `[B, 1]` at the places `draws_B` (0 to 1) of the cumulative distribution, cut to its `top_p` likeliest."""
    if top_p < 1.0:
        sorted_BV = p_BV.sort(dim=-1, descending=True).values
        last_B1 = (sorted_BV.cumsum(-1) < top_p).sum(-1, keepdim=True).clamp_(max=p_BV.shape[-1] - 1)
        p_BV = p_BV.where(p_BV >= sorted_BV.gather(1, last_B1), 0.0)
    cumulative_BV = p_BV.cumsum(-1)
    total_B1 = cumulative_BV[:, -1:]
    # A draw may round to 1, and what lies at the very end belongs to no token.
    places_B1 = torch.minimum(draws_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(cumulative_BV, places_B1, right=True)


def _merge(
    siblings: Sequence[Chain], embeddings: dict[Chain, Tensor], distance: float, rng: np.random.Generator
) -> set[Chain]:
    """Gives the survivors of pruning the mass of their clusters; returns the chains that were merged into them."""
    # A chain whose only token ends the answer was not forwarded: it has no embedding, and equals its like.
    width = next((len(vector) for vector in embeddings.values()), 1)
    vectors = [embeddings.get(chain, torch.zeros(width)).cpu().numpy() for chain in siblings]
    kept, masses = survivors(clusters(np.stack(vectors), distance), rng)
    for index, mass in zip(kept, masses, strict=True):
        siblings[index].mass *= float(mass)
    return set(siblings) - {siblings[index] for index in kept}
