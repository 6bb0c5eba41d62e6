"""3x3 convolutions of training steps by the matrix unit, against torch in double precision.

Where the processor has no such unit, the same code runs on an imitation of it.
"""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from convatlas import create_model
from convatlas.native import CompilerError
from convatlas.training import tiled
from convatlas.training.fast import choose_speed, prepare
from convatlas.training.fused import part
from convatlas.training.tiled import TILED, TiledConv2d
from convatlas.training.winograd import WINOGRAD, WinogradConv2d
from numbers_of_threads import with_threads
from steps import LAST, UNFIT, Change, assert_torch_does, in_double, learn

CPU = torch.device("cpu")
# Images, channels in and out, height, width, padding.
SHAPES = {
    "usual": (4, 16, 16, 28, 28, 1),
    "channels change": (3, 32, 48, 9, 7, 1),
    "an odd number of tiles": (2, 48, 16, 5, 11, 1),
    "no padding": (3, 16, 32, 9, 6, 0),
    "all of the padding": (2, 64, 16, 5, 11, 2),
    "a pixel": (20, 16, 16, 1, 1, 1),
    "large maps": (1, 32, 16, 70, 150, 1),
    "more images than parts": (40, 16, 32, 6, 6, 1),
    "several groups of columns": (2, 64, 64, 8, 8, 1),
}
Shape = tuple[int, int, int, int, int, int]


def make(shape: Shape, *, bias: bool = False) -> tuple[nn.Sequential, Tensor]:
    """With values that bfloat16 has, so that only what is computed of them is rounded."""
    torch.manual_seed(0)
    images, in_chans, out_chans, height, width, pad = shape
    net = nn.Sequential(nn.Conv2d(in_chans, out_chans, 3, padding=pad, bias=bias)).to(memory_format=LAST)
    net[0].weight.data = net[0].weight.data.bfloat16().float()
    x = torch.randn(images, in_chans, height, width).bfloat16().float()
    return net.train(), x.contiguous(memory_format=LAST).requires_grad_()


def learn_in_half(net: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return learn(net, x)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_learns_as_torch_does(shape: Shape, bias: bool) -> None:
    net, x = make(shape, bias=bias)
    expected = in_double(net, x)
    TILED.change(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert type(net[0]) is TiledConv2d and net[0].fits(x)
    found = learn_in_half(net, x)
    assert found[0].dtype == torch.bfloat16 and found[0].is_contiguous(memory_format=LAST)
    for ours, theirs in zip(found, expected, strict=True):
        # bfloat16 rounds by up to 2^-9; the gradient from above is rounded, too.
        assert (ours.double() - theirs).norm() < 2.0**-8 * theirs.norm()


def test_sums_do_not_depend_on_the_threads() -> None:
    net, x = make(SHAPES["more images than parts"])
    TILED.change(net)
    found = with_threads(lambda: learn_in_half(copy.deepcopy(net), x.detach().requires_grad_()))
    for other in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], other, strict=True))


@pytest.mark.parametrize("asks", ["images", "weights"])
def test_only_what_is_asked_for_is_computed(asks: str) -> None:
    net, x = make(SHAPES["usual"])
    expected = dict(zip(("y", "images", "weights"), in_double(net, x), strict=True))
    TILED.change(net)
    net.requires_grad_(asks == "weights")
    _, found = learn_in_half(net, x.detach().requires_grad_(asks == "images"))
    assert (found.double() - expected[asks]).norm() < 2.0**-8 * expected[asks].norm()


@pytest.mark.parametrize(
    "change",
    [*UNFIT.values(), lambda net, x: (net.to(memory_format=torch.contiguous_format), x), lambda *both: both],
    ids=[*UNFIT, "layout of weights", "single precision"],
)
def test_torch_does_what_does_not_fit(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_torch_does(lambda: make(SHAPES["usual"]), TILED.change, change, monkeypatch)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Conv2d(16, 16, 5, padding=2),
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.Conv2d(64, 128, 3, padding=1),
    ],
    ids=["stride", "groups", "dilation", "5x5", "3 channels", "24 channels", "128 channels"],
)
def test_other_convolutions_are_torchs(conv: nn.Module) -> None:
    TILED.change(conv)
    assert type(conv) is nn.Conv2d


class Unit:
    """What stands for the compiled library: whether there is a matrix unit, and how many lanes."""

    def __init__(self, has_tiles: bool) -> None:
        self.train_has_tiles = lambda: int(has_tiles)
        self.train_lanes = lambda: 16


def test_the_unit_is_used_for_half_precision_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "library", lambda: Unit(True))
    assert TILED.serves(torch.bfloat16)
    assert not TILED.serves(None)
    assert not TILED.serves(torch.float16)
    monkeypatch.setattr(tiled, "library", lambda: Unit(False))
    assert not TILED.serves(torch.bfloat16)

    def fail() -> None:
        raise CompilerError("needs a C++ compiler")

    monkeypatch.setattr(tiled, "library", fail)
    assert not TILED.serves(torch.bfloat16)


def test_wide_convolutions_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "library", lambda: Unit(True))
    monkeypatch.setattr("convatlas.training.fast.gain", lambda *_: 2.0)
    monkeypatch.setattr("convatlas.training.fast._autocast", lambda _: (torch.bfloat16, "bfloat16"))
    net = create_model("resnet18", num_classes=10)
    speed = choose_speed(CPU, net=net)
    assert speed.replaced == (TILED, WINOGRAD)
    reason = "at most 64 channels by the processor's matrix unit: 2.00 times as fast as torch's here"
    assert f"3x3 convolutions of {reason}" in speed.reasons
    kinds = [type(layer) for layer in net.modules()]
    prepare(net, dataclasses.replace(speed, native=False))
    found = {type(layer): layer.in_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)}
    assert found[TiledConv2d] == 64
    assert found[WinogradConv2d] > 64
    part(net)
    assert [type(layer) for layer in net.modules()] == kinds
