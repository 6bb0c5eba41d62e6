"""Normalisation and activation in C++, against torch in double precision."""

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convatlas
from convatlas import create_model
from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.residual import BasicBlock, Bottleneck, make_shortcut
from convatlas.training.cpu import fused_norm
from convatlas.training.cpu.choose import ExecutionPlan, choose_execution, prepare
from convatlas.training.cpu.fused_layers import fuse, part, spare_copies
from convatlas.training.cpu.fused_norm import FusedNorm
from convatlas.training.cpu.library import library
from numbers_of_threads import with_threads

CPU = torch.device("cpu")
LAST = torch.channels_last
Change = Callable[[nn.Module, Tensor], tuple[nn.Module, Tensor]]
ACTS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
}
SHAPES = {
    "usual": (4, 32, 9, 9),
    "few channels": (3, 5, 7, 3),
    "one channel": (2, 1, 6, 5),
    "a pixel": (6, 24, 1, 1),
    "several parts": (8, 40, 40, 40),
}


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Away from 0, as the maps of a network are."""
    return (3.0 + 2.0 * torch.randn(shape)).to(dtype).contiguous(memory_format=LAST).requires_grad_()


def trained(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With parameters that are not all alike."""
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    return norm


def learn(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What comes out, the gradients, and the statistics."""
    y = net(x)
    slope = torch.linspace(-1.0, 2.0, y.numel()).reshape(y.shape).to(y.dtype)
    (y * slope).sum().backward()
    assert x.grad is not None
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    return [y.detach(), x.grad, *grads, *net.buffers()]


def in_double(net: nn.Module, x: Tensor) -> list[Tensor]:
    return learn(copy.deepcopy(net).double(), x.detach().double().requires_grad_())


def assert_near(found: list[Tensor], expected: list[Tensor], error: float) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        scale = float(theirs.detach().abs().max()) if theirs.is_floating_point() else 1.0
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0.0, atol=error * max(scale, 1e-6))


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_learns_as_torch_does(shape: tuple[int, ...], act: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(trained(nn.BatchNorm2d(shape[1])), act()).train()
    x = images(shape)
    expected = in_double(net, x)
    fuse(net)
    assert_near(learn(net, x), expected, 1e-5)


@pytest.mark.parametrize("act", [nn.ReLU6, nn.SiLU])
def test_learns_in_half_precision(act: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(trained(nn.BatchNorm2d(20)), act()).train()
    x = images((4, 20, 11, 11), torch.bfloat16)
    expected = in_double(net, x)
    fuse(net)
    found = learn(net, x)
    assert [t.dtype for t in found[:4]] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    assert_near(found, expected, 2.0**-7)  # of a value near the largest, half of the last bit is 2^-9


@pytest.mark.parametrize(
    "options",
    [{"affine": False}, {"track_running_stats": False}, {"momentum": 0.01, "eps": 1e-3}],
    ids=["no parameters", "no statistics", "other constants"],
)
def test_options_of_the_layer(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(trained(nn.BatchNorm2d(16, **options)), nn.ReLU()).train()
    x = images((4, 16, 6, 6))
    expected = in_double(net, x)
    fuse(net)
    assert_near(learn(net, x), expected, 1e-5)


def test_a_large_mean_takes_no_digits_away() -> None:
    torch.manual_seed(0)
    norm = nn.Sequential(nn.BatchNorm2d(8)).train()
    x = (1e4 + torch.randn(4, 8, 12, 12)).contiguous(memory_format=LAST).requires_grad_()
    expected = in_double(norm, x)
    fuse(norm)
    # Half of the last bit of 1e4 is 5e-4, which torch is off by.
    assert_near(learn(norm, x), expected, 1e-5)


def test_what_is_lost_stays_visible() -> None:
    net = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()).train()
    fuse(net)
    x = images((2, 8, 4, 4)).detach()
    x[0, 3, 1, 1] = math.nan
    y = net(x)
    assert y[:, 3].isnan().all()
    assert y[:, :3].isfinite().all()


def test_sums_do_not_depend_on_the_threads() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(trained(nn.BatchNorm2d(24)), nn.SiLU()).train()
    fuse(net)
    x = images((8, 24, 40, 40))
    found = with_threads(lambda: learn(copy.deepcopy(net), x.detach().requires_grad_()))
    for other in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda net, x: (net.eval(), x), id="evaluation"),
        pytest.param(lambda net, x: (net, x.detach().contiguous().requires_grad_()), id="torch's layout"),
        pytest.param(lambda net, x: (net.double(), x.detach().double().requires_grad_()), id="double"),
    ],
)
def test_torch_does_what_does_not_fit(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(trained(nn.BatchNorm2d(8)), nn.ReLU()).train()
    net = copy.deepcopy(plain)
    fuse(net)
    monkeypatch.setattr(fused_norm, "library", lambda: pytest.fail("C++ is called"))
    x = images((4, 8, 5, 5))
    expected = learn(*change(plain, x.detach().clone(memory_format=torch.preserve_format).requires_grad_()))
    found = learn(*change(net, x))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_cumulative_statistics_are_torchs() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(8, momentum=None)).train()
    net = copy.deepcopy(plain)
    fuse(net)
    for _ in range(3):
        x = images((4, 8, 5, 5)).detach()
        plain(x)
        net(x)
    assert torch.equal(net[0].running_mean, plain[0].running_mean)
    assert int(net[0].num_batches_tracked) == 3


def test_a_single_value_has_no_variance() -> None:
    net = nn.Sequential(nn.BatchNorm2d(8)).train()
    fuse(net)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(torch.randn(1, 8, 1, 1))


def test_hooks_on_either_layer_are_called() -> None:
    net = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()).train()
    fuse(net)
    seen: list[str] = []
    for name, layer in zip(("norm", "act"), net, strict=True):
        layer.register_forward_hook(lambda *_args, name=name: seen.append(name))
    net(images((4, 8, 5, 5)))
    assert seen == ["norm", "act"]


BLOCKS = {
    "identity": lambda **options: BasicBlock(16, 16, make_shortcut("B", 16, 16), **options),
    "zeros": lambda **options: BasicBlock(16, 24, make_shortcut("A", 16, 24, 2), stride=2, **options),
    "projection": lambda **options: BasicBlock(16, 5, make_shortcut("B", 16, 5), **options),
    "bottleneck": lambda **options: Bottleneck(16, 8, 16, make_shortcut("B", 16, 16), **options),
}


def residual(make: Callable[..., nn.Module], **options: Any) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    block = make(**options).train()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            trained(layer)
    return block, images((3, 16, 11, 9))


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.SiLU])
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_a_residual_block_learns_as_torch_does(
    make: Callable[..., nn.Module], act: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    block, x = residual(make, act=act)
    expected = in_double(block, x)
    fuse(block)
    monkeypatch.setattr(act, "forward", lambda *_: pytest.fail("the last activation is done by itself"))
    assert_near(learn(block, x), expected, 1e-5)


def test_a_residual_block_learns_in_half_precision() -> None:
    block, x = residual(BLOCKS["identity"])
    expected = in_double(block, x)
    fused = copy.deepcopy(block)
    fuse(fused)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_torch, by_us = (learn(net, x.detach().bfloat16().requires_grad_()) for net in (block, fused))
    for ours, theirs, exact in zip(by_us, by_torch, expected, strict=True):
        if exact.is_floating_point():
            error, usual = ((found.double() - exact).norm() / exact.norm() for found in (ours, theirs))
            assert error < max(1.2 * usual, 0.01)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda block: block.eval(), id="evaluation"),
        pytest.param(lambda block: setattr(block, "squeeze", nn.Sigmoid()), id="gate"),
        pytest.param(lambda block: setattr(block.conv2, "norm", nn.Identity()), id="no norm"),
        pytest.param(lambda block: setattr(block, "act", nn.Tanh()), id="another activation"),
        pytest.param(lambda block: setattr(block, "shortcut", nn.AvgPool2d(1, 1)), id="another shortcut"),
        pytest.param(lambda block: block.act.register_forward_hook(lambda *_: None), id="hook"),
    ],
)
def test_a_residual_block_that_does_not_fit(change: Callable[[nn.Module], object]) -> None:
    block, x = residual(BLOCKS["identity"])
    change(block)
    expected = in_double(block, x)
    fuse(block)
    assert_near(learn(block, x), expected, 1e-5)


def test_dropped_paths_of_a_residual_block() -> None:
    block, x = residual(BLOCKS["identity"], drop_path_rate=0.5)
    fused = copy.deepcopy(block)
    fuse(fused)
    torch.manual_seed(3)
    expected = learn(block, x.detach().clone(memory_format=LAST).requires_grad_())
    torch.manual_seed(3)
    assert_near(learn(fused, x), expected, 1e-5)


def test_hooks_within_a_residual_block_are_called() -> None:
    block, x = residual(BLOCKS["identity"])
    fuse(block)
    seen: list[str] = []
    for name, layer in block.named_modules():
        layer.register_forward_hook(lambda *_args, name=name: seen.append(name))
    block(x)
    assert sorted(seen) == sorted(name for name, _ in block.named_modules())


@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v2_035", "preact_resnet110_cifar"])
def test_a_fused_network_is_still_itself(name: str) -> None:
    net = create_model(name, num_classes=10).train()
    keys, text = list(net.state_dict()), str(net)
    fuse(net)
    again = pickle.loads(pickle.dumps(net))
    assert (list(again.state_dict()), str(again)) == (keys, text)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in again.modules()) > 9
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(net.eval()(x), again.eval()(x))


def test_a_network_gets_its_layers_back() -> None:
    net = create_model("mobilenet_v2_035", num_classes=10)
    kinds = [type(layer) for layer in net.modules()]
    spare_copies(net)
    fuse(net)
    assert any(type(layer) is FusedNorm for layer in copy.deepcopy(net).modules())
    part(net)
    assert [type(layer) for layer in net.modules()] == kinds


def test_a_trained_network_has_its_layers(tmp_path: Path) -> None:
    net = nn.Sequential(ConvNormAct(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    before = net[0].norm.weight.detach().clone()
    kinds = [type(layer) for layer in net.modules()]
    run = convatlas.train(net, data="digits", epochs=1, out=tmp_path)
    assert "normalisation and activation at once" in (run.folder / "run.json").read_text()
    assert [type(layer) for layer in net.modules()] == kinds
    assert not torch.equal(net[0].norm.weight, before)


@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v2_035", "efficientnet_b0"])
def test_a_network_learns_the_same(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(name, num_classes=10, drop_rate=0.0, drop_path_rate=0.0).train()
    x = torch.randn(4, 3, 64, 64)
    labels = torch.arange(4)

    def gradients(net: nn.Module, execution: ExecutionPlan) -> Tensor:
        forward = prepare(net, execution)
        nn.functional.cross_entropy(forward(x.to(next(net.parameters()).dtype)), labels).backward()
        return torch.cat([p.grad.double().flatten() for p in net.parameters() if p.grad is not None])

    exact = copy.deepcopy(net).double()
    expected = gradients(exact, choose_execution(CPU, exact=True, net=exact))
    execution = dataclasses.replace(choose_execution(CPU, net=net), autocast=None)
    assert execution.native
    # In single precision, torch itself is off by 0.001 here: some activations are at a bound.
    assert (gradients(net, execution) - expected).norm() < 0.01 * expected.norm()


def test_without_a_compiler_layers_are_torchs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = create_model("resnet20_cifar", num_classes=10).train()
    library.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    execution = choose_execution(CPU, net=net)
    assert not execution.native
    assert "normalisation and activation one by one: needs a C++ compiler" in "\n".join(execution.reasons)
    prepare(net, execution)
    assert not any(type(layer) is FusedNorm for layer in net.modules())


@pytest.mark.parametrize(
    "net", [nn.Conv2d(3, 8, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))], ids=["none", "vectors"]
)
def test_nothing_is_compiled_without_a_use(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convatlas.training.cpu.choose.library", lambda: pytest.fail("it is compiled"))
    assert not choose_execution(CPU, net=net).native
