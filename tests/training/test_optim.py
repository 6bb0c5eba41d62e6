import math
from typing import Any

import pytest
import torch
from torch import Tensor

from convatlas.training.optim import Optimiser
from convatlas.training.recipes.recipe import Recipe

STEPS = 6


def recipe(**fields: Any) -> Recipe:
    return Recipe(**({"epochs": 1, "batch_size": 1, "lr": 1.0} | fields))


def leaves(seed: int = 0) -> list[Tensor]:
    """A linear layer with its bias, a convolution in channels-last, a depthwise one."""
    torch.manual_seed(seed)
    shapes = [(4, 3), (5,), (8, 3, 3, 3), (6, 1, 3, 3)]
    values = [torch.randn(shape) for shape in shapes]
    values[2] = values[2].to(memory_format=torch.channels_last)
    return [value.requires_grad_() for value in values]


def lr_of(step: int) -> float:
    return 0.1 / (step + 1)


def backward(params: list[Tensor], step: int) -> None:
    sum(((p - step) ** 3).mean() for p in params).backward()


def train(optimiser: Optimiser, params: list[Tensor], steps: range = range(STEPS)) -> None:
    for step in steps:
        backward(params, step)
        optimiser.step(lr_of(step))
        optimiser.zero_grad()


def train_peer(optimizer: torch.optim.Optimizer, params: list[Tensor]) -> list[Tensor]:
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = lr_of(step)
        backward(params, step)
        optimizer.step()
        optimizer.zero_grad()
    return params


def groups(params: list[Tensor], spared: set[int]) -> list[dict[str, Any]]:
    return [
        {"params": [p for i, p in enumerate(params) if i not in spared]},
        {"params": [p for i, p in enumerate(params) if i in spared], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("fused", [pytest.param(True, id="fused"), pytest.param(False, id="plain")])
@pytest.mark.parametrize(
    ("fields", "spared"),
    [
        pytest.param({"momentum": 0.0}, set(), id="no-momentum"),
        pytest.param({"momentum": 0.9}, set(), id="momentum"),
        pytest.param({"momentum": 0.9, "nesterov": True}, set(), id="nesterov"),
        pytest.param({"momentum": 0.9, "decay_norm_and_bias": False}, {1}, id="vectors-spared"),
        pytest.param({"momentum": 0.9, "decay_depthwise": False}, {3}, id="depthwise-spared"),
    ],
)
def test_sgd_equals_torch(fields: dict[str, Any], spared: set[int], fused: bool) -> None:
    ours, theirs = leaves(), leaves()
    train(Optimiser(ours, recipe(weight_decay=0.03, **fields), fused), ours)
    kept = {name: fields[name] for name in ("momentum", "nesterov") if name in fields}
    train_peer(torch.optim.SGD(groups(theirs, spared), lr=1.0, weight_decay=0.03, **kept), theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fused", [pytest.param(True, id="fused"), pytest.param(False, id="plain")])
def test_adamw_equals_torch(fused: bool) -> None:
    ours, theirs = leaves(), leaves()
    fields = {"weight_decay": 0.05, "betas": (0.8, 0.95), "eps": 1e-6}
    wanted = recipe(optimizer="adamw", decay_norm_and_bias=False, **fields)
    train(Optimiser(ours, wanted, fused), ours)
    train_peer(torch.optim.AdamW(groups(theirs, {1}), lr=1.0, **fields), theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("momentum", "eps"),
    [pytest.param(0.9, 1.0, id="inception"), pytest.param(0.0, 1e-3, id="no-momentum")],
)
def test_rmsprop_equals_timms_tensorflow_variant(momentum: float, eps: float) -> None:
    from timm.optim.rmsprop_tf import RMSpropTF

    ours, theirs = leaves(), leaves()
    fields = {"weight_decay": 0.03, "momentum": momentum, "eps": eps}
    train(Optimiser(ours, recipe(optimizer="rmsprop", rms_decay=0.9, **fields)), ours)
    train_peer(RMSpropTF(theirs, lr=1.0, alpha=0.9, lr_in_momentum=True, **fields), theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_rmsprop_by_hand() -> None:
    p = torch.tensor([2.0], requires_grad=True)
    optimiser = Optimiser([p], recipe(optimizer="rmsprop", momentum=0.5, rms_decay=0.9, eps=0.25))
    value, square, velocity = 2.0, 1.0, 0.0
    for gradient, lr in ((3.0, 0.1), (-1.0, 0.2)):
        p.grad = torch.tensor([gradient])
        optimiser.step(lr)
        square = 0.9 * square + 0.1 * gradient**2
        velocity = 0.5 * velocity + lr * gradient / math.sqrt(square + 0.25)
        value -= velocity
        assert p.item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"momentum": 0.9}, id="sgd"),
        pytest.param({"optimizer": "rmsprop", "momentum": 0.9, "eps": 1.0}, id="rmsprop"),
        pytest.param({"optimizer": "adamw"}, id="adamw"),
    ],
)
def test_a_resumed_optimiser_goes_on_to_the_bit(fields: dict[str, Any]) -> None:
    wanted, whole = recipe(weight_decay=0.01, **fields), leaves()
    train(Optimiser(whole, wanted), whole)

    halves = leaves()
    first = Optimiser(halves, wanted)
    train(first, halves, range(3))
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second = Optimiser(halves, wanted)
    second.load(state)
    train(second, halves, range(3, STEPS))
    assert all(torch.equal(p, q) for p, q in zip(whole, halves, strict=True))


def test_a_gradient_laid_out_otherwise_than_its_parameter() -> None:
    p = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    start, gradient = p.detach().clone(), torch.randn(4, 3, 2, 2)
    p.grad = gradient
    Optimiser([p], recipe()).step(0.5)
    torch.testing.assert_close(p.detach(), start - 0.5 * gradient)


def test_a_parameter_without_gradient_stays() -> None:
    p, q = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    optimiser = Optimiser([p, q], recipe(momentum=0.9, weight_decay=0.1))
    p.grad = torch.ones(3)
    optimiser.step(0.1)
    assert torch.equal(q.detach(), torch.ones(3))
    torch.testing.assert_close(p.detach(), torch.full((3,), 1.0 - 0.1 * 1.1))


@pytest.mark.parametrize(
    ("clip_norm", "moved"), [pytest.param(1.0, 1.0, id="clipped"), pytest.param(9.0, 5.0, id="short-enough")]
)
def test_clipping_shortens_the_gradient_of_all_parameters_together(clip_norm: float, moved: float) -> None:
    p, q = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    p.grad, q.grad = torch.tensor([3.0]), torch.tensor([4.0])
    Optimiser([p, q], recipe(clip_norm=clip_norm)).step(1.0)
    length = torch.cat([p.detach(), q.detach()]).norm().item()
    assert length == pytest.approx(moved, rel=1e-5)


def test_unscaling_divides_and_finds_what_is_not_finite() -> None:
    p, q = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimiser = Optimiser([p, q], recipe())
    p.grad = torch.tensor([8.0, 16.0])
    assert optimiser.unscale(8.0) is True
    assert p.grad.tolist() == [1.0, 2.0]
    q.grad = torch.tensor([1.0, math.inf])
    assert optimiser.unscale(8.0) is False
    optimiser.zero_grad()
    assert p.grad is None
    assert q.grad is None


@pytest.mark.parametrize(
    ("other", "params", "message"),
    [
        pytest.param(
            {"optimizer": "adamw"}, leaves(), r"the state does not fit 'adamw' .* 'mean\.0'", id="optimiser"
        ),
        pytest.param({"momentum": 0.9}, leaves()[:2], r"'sgd' over 2 parameters: 2 entries", id="fewer"),
        pytest.param({"momentum": 0.9}, leaves()[::-1], r"the first is 'velocity\.0'", id="shapes"),
    ],
)
def test_a_state_that_does_not_fit(other: dict[str, Any], params: list[Tensor], message: str) -> None:
    state = Optimiser(leaves(), recipe(momentum=0.9)).state()
    with pytest.raises(ValueError, match=message):
        Optimiser(params, recipe(**other)).load(state)
