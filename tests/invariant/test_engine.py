"""The engine's step against its plain definition, and what it refuses to do (float32, 1e-6)."""

import pytest
import torch

from ytrain.engine.base import OptimizerSettings
from ytrain.engine.torch_engine import TorchEngine

pytestmark = pytest.mark.invariant


def parameters() -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(0)
    return {"matrix": torch.nn.Parameter(torch.randn(3, 4)), "bias": torch.nn.Parameter(torch.randn(4))}


def loss(parameters: dict[str, torch.nn.Parameter], scale: float = 1.0) -> torch.Tensor:
    return scale * sum((parameter**3).sum() for parameter in parameters.values())


def engine(parameters: dict[str, torch.nn.Parameter], clip: float = 0.0, decay: float = 0.1) -> TorchEngine:
    return TorchEngine(parameters, OptimizerSettings(weight_decay=decay, gradient_clip=clip))


def test_a_first_step_is_adamw_as_written() -> None:
    """The first AdamW step moves by the sign of the gradient; only matrices decay."""
    moved, start = parameters(), parameters()
    subject = engine(moved)
    subject.backward(loss(moved), last=True)
    norm = subject.step(learning_rate=0.01)
    gradients = {name: 3 * value.detach() ** 2 for name, value in start.items()}
    assert norm == pytest.approx(torch.cat([g.flatten() for g in gradients.values()]).norm().item(), rel=1e-5)
    for name, decay in (("matrix", 0.1), ("bias", 0.0)):
        step = gradients[name] / (gradients[name].abs() + 1e-8)
        expected = start[name] * (1 - 0.01 * decay) - 0.01 * step
        torch.testing.assert_close(moved[name].detach(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_accumulation_is_the_sum_and_the_scale_is_linear() -> None:
    once, twice = parameters(), parameters()
    a, b = engine(once), engine(twice)
    a.backward(loss(once, 2.0), last=True)
    for _ in range(2):
        b.backward(loss(twice, 0.5), last=True)
    # 2 = (0.5 + 0.5) * gradient_scale 2, seen by the norm that clipping uses.
    assert a.step(learning_rate=0.01) == pytest.approx(b.step(learning_rate=0.01, gradient_scale=2.0), rel=1e-6)
    torch.testing.assert_close(once["matrix"], twice["matrix"])


def test_clipping_bounds_the_gradient_that_adamw_sees() -> None:
    clipped, scaled = parameters(), parameters()
    a, b = engine(clipped, clip=0.5), engine(scaled)
    for _ in range(3):
        a.backward(loss(clipped), last=True)
        norm = a.step(learning_rate=0.01)
        assert norm > 0.5
        b.backward(loss(scaled), last=True)
        b.step(learning_rate=0.01, gradient_scale=0.5 / (norm + 1e-6))
    torch.testing.assert_close(clipped["matrix"], scaled["matrix"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    moved = parameters()
    subject = engine(moved)
    subject.backward(loss(moved), last=True)
    subject.step(learning_rate=0.01)
    before = {name: value.clone() for name, value in subject.state()}
    subject.backward(loss(moved, bad), last=True)
    assert not torch.isfinite(torch.tensor(subject.step(learning_rate=0.01)))
    assert all(torch.equal(value, before[name]) for name, value in subject.state())


def test_a_loaded_engine_goes_on_bit_equal() -> None:
    whole, stopped = parameters(), parameters()
    a, b = engine(whole), engine(stopped)

    def step(subject: TorchEngine, parameters: dict[str, torch.nn.Parameter]) -> None:
        subject.backward(loss(parameters), last=True)
        subject.step(learning_rate=0.01)

    for _ in range(3):
        step(a, whole)
    step(b, stopped)
    resumed = {name: torch.nn.Parameter(torch.zeros_like(value)) for name, value in stopped.items()}
    c = engine(resumed)
    c.load({name: value.clone() for name, value in b.state()})
    for _ in range(2):
        step(c, resumed)
    assert all(torch.equal(value, dict(c.state())[name]) for name, value in a.state())
