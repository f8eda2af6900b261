"""How samples are laid into rows changes neither loss nor gradient (float32, relative tolerance 2e-5)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from small_models import FAMILIES, Tokens, assert_same, loss_and_gradients, random_model, random_samples, segments

from ytrain.data.rows import Segment, build_row
from ytrain.objective import weights
from ytrain.objective.head import Objective, objective_sum

pytestmark = pytest.mark.invariant
TOLERANCE = 2e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_unpacked(family: str) -> None:
    model, samples = random_model(family, **FAMILIES[family]), random_samples()
    every = segments(samples)
    unpacked = loss_and_gradients(model, samples, [[segment] for segment in every])
    assert_same(loss_and_gradients(model, samples, [every]), unpacked, TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_hidden_states_equal_those_of_transformers(family: str) -> None:
    """Against the model's own attention, a sample at a time: packed = unpacked alone could both be wrong."""
    model, samples = random_model(family, **FAMILIES[family]), random_samples()
    row = build_row(samples, segments(samples))
    with model.evaluating():
        hidden_TD = model.hidden(row)
    with model.generating() as module:
        for sample, (begin, end) in zip(samples, pairwise(row.boundaries), strict=True):
            ids = torch.from_numpy(sample.input_ids[: end - begin].astype(np.int64))[None]
            expected = module.get_decoder()(input_ids=ids).last_hidden_state[0]
            torch.testing.assert_close(hidden_TD[begin:end], expected, rtol=1e-4, atol=1e-5)


def test_micro_batches_regrouped_give_the_same_gradient() -> None:
    model, samples = random_model(), random_samples()
    a, b, c, d, e = segments(samples)
    one = loss_and_gradients(model, samples, [[a, b, c, d, e]])
    for rows in ([[a, b], [c, d, e]], [[e], [a, c], [d, b]], [[c, d, e, a], [b]]):
        assert_same(loss_and_gradients(model, samples, rows), one, TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_document_in_the_row_changes_no_bit_of_the_others(family: str) -> None:
    model, samples = random_model(family, **FAMILIES[family]), random_samples()
    changed = [*samples]
    changed[1] = Tokens((samples[1].input_ids + 1) % 90 + 3, samples[1].supervised)
    with model.evaluating():
        before, after = (model.hidden(build_row(each, segments(samples))) for each in (samples, changed))
    bounds = build_row(samples, segments(samples)).boundaries
    same = [torch.equal(before[begin:end], after[begin:end]) for begin, end in pairwise(bounds)]
    assert same == [True, False, True, True, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_crosses_a_segment(family: str) -> None:
    """The loss of one sample in a pack does not depend on the embedding of a token that only another one holds."""
    model, samples = random_model(family, tie_word_embeddings=False, **FAMILIES[family]), random_samples()
    only_in_first = set(samples[0].input_ids.tolist()) - {i for s in samples[1:] for i in s.input_ids.tolist()}
    row = build_row(samples, segments(samples))
    hidden_TD = model.hidden(row)
    hidden_TD[row.boundaries[1] :].square().sum().backward()  # type: ignore[no-untyped-call]
    gradient_VD = model.module.get_input_embeddings().weight.grad
    assert only_in_first and gradient_VD is not None
    assert all(gradient_VD[token].abs().max() == 0 for token in only_in_first)
    assert all(gradient_VD[token].abs().max() > 0 for token in samples[1].input_ids[:3])


def test_a_window_forwards_only_up_to_its_end_and_is_exact() -> None:
    model, samples = random_model(), random_samples((40,))
    labels = int(samples[0].supervised.sum())
    whole = build_row(samples, [Segment(0, 0, labels)])
    for first in range(0, labels, 6):
        window = Segment(0, first, min(first + 6, labels))
        row = build_row(samples, [window])
        assert row.tokens == row.label_rows_R[-1] + 1
        truncated = loss_and_gradients(model, samples, [[window]])
        model.module.zero_grad()
        rows_R = whole.label_rows_R[first : window.end_label]
        loss, _ = objective_sum(
            model.hidden(whole)[rows_R],
            whole.labels_R[first : window.end_label],
            model.head(),
            Objective(weigh=weights.nlirg()),
        )
        loss.backward()  # type: ignore[no-untyped-call]
        full = {name: p.grad for name, p in model.trainable().items() if p.grad is not None}
        assert_same(truncated, (loss.item(), full), TOLERANCE)


def test_recomputed_activations_change_nothing() -> None:
    model, samples = random_model(), random_samples()
    model.top.train()
    kept = loss_and_gradients(model, samples, [segments(samples)])
    model.module.activation_checkpointing_enable({"use_reentrant": False})
    assert_same(loss_and_gradients(model, samples, [segments(samples)]), kept, 1e-6)
