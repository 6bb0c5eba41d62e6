"""Depthwise convolutions of training steps in C++, against torch in double precision."""

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from convatlas import create_model
from convatlas.training.cpu.choose import choose_execution, prepare
from convatlas.training.cpu.depthwise import DEPTHWISE, DepthwiseConv2d
from convatlas.training.cpu.fused_layers import part
from convatlas.training.cpu.replacement import Replacement
from numbers_of_threads import with_threads
from steps import (
    UNFIT,
    Change,
    assert_half_precision_learns,
    assert_near,
    assert_torch_does,
    assert_what_is_asked_for,
    cut,
    in_double,
    learn,
)

CPU = torch.device("cpu")
LAST = torch.channels_last
# Images, channels, height, width, kernel, stride, padding.
SHAPES = {
    "usual": (4, 32, 28, 28, 3, 1, 1),
    "stride 2": (3, 16, 28, 28, 3, 2, 1),
    "5x5": (2, 48, 14, 14, 5, 1, 2),
    "5x5 stride 2": (2, 16, 15, 17, 5, 2, 2),
    "as wide as what is done at once": (5, 16, 7, 7, 3, 1, 1),
    "5x5 of 7 px": (2, 16, 7, 7, 5, 1, 2),
    "no padding": (2, 16, 11, 9, 3, 1, 0),
    "no padding, 5x5, stride 2": (1, 16, 12, 18, 5, 2, 0),
    "all of the padding": (2, 16, 9, 8, 3, 1, 2),
    "all of the padding, 5x5": (1, 32, 6, 9, 5, 1, 4),
    "outputs wider than the input": (2, 16, 3, 5, 3, 1, 2),
    "low": (2, 16, 1, 30, 5, 1, 2),
    "many images": (150, 16, 7, 9, 3, 1, 1),
    "one image of odd size": (1, 16, 23, 31, 3, 2, 1),
}


def make(shape: tuple[int, ...], *, bias: bool = False) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    images, chans, height, width, kernel, stride, pad = shape
    conv = nn.Conv2d(chans, chans, kernel, stride, pad, groups=chans, bias=bias)
    net = nn.Sequential(conv).to(memory_format=LAST)
    x = torch.randn(images, chans, height, width).contiguous(memory_format=LAST)
    return net.train(), x.requires_grad_()


def put(net: nn.Module) -> None:
    for ours in DEPTHWISE:
        ours.change(net)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_learns_as_torch_does(shape: tuple[int, ...], bias: bool) -> None:
    net, x = make(shape, bias=bias)
    expected = in_double(net, x)
    put(net)
    assert type(net[0]) is DepthwiseConv2d and net[0].fits(x)
    assert_near(learn(net, x), expected, 1e-6)


@pytest.mark.parametrize("name", ["usual", "5x5 stride 2"])
def test_learns_in_half_precision(name: str) -> None:
    assert_half_precision_learns(lambda: make(SHAPES[name], bias=True), put)


@pytest.mark.parametrize("name", ["usual", "stride 2", "5x5", "many images"])
def test_sums_do_not_depend_on_the_threads(name: str) -> None:
    net, x = make(SHAPES[name])
    put(net)
    found = with_threads(lambda: learn(copy.deepcopy(net), x.detach().requires_grad_()))
    for other in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], other, strict=True))


def test_only_what_is_asked_for_is_computed() -> None:
    assert_what_is_asked_for(lambda: make(SHAPES["usual"]), put, 1e-6)


NOT_FIT: dict[str, Change] = UNFIT | {"narrow maps": lambda net, x: (net, cut(x, 28, 6))}


@pytest.mark.parametrize("change", NOT_FIT.values(), ids=NOT_FIT)
def test_torch_does_what_does_not_fit(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_torch_does(lambda: make(SHAPES["usual"]), put, change, monkeypatch)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 16, 7, padding=3, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, stride=3, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, stride=(1, 2), groups=16),
        nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16),
        nn.Conv2d(16, 16, 3, padding=3, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect", groups=16),
        nn.Conv2d(16, 16, 3, padding="same", groups=16),
        nn.Conv2d(16, 32, 3, padding=1, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, groups=8),
        nn.Conv2d(17, 17, 3, padding=1, groups=17),
        nn.ConvTranspose2d(16, 16, 3, padding=1, groups=16),
    ],
    ids=[
        *("7x7", "stride 3", "two strides", "dilation", "much padding", "reflection", "same"),
        *("two outputs per channel", "groups of 2", "17 channels", "transposed"),
    ],
)
def test_other_convolutions_are_torchs(conv: nn.Module) -> None:
    kind = type(conv)
    put(conv)
    assert type(conv) is kind


@pytest.mark.parametrize("name", ["mobilenet_v2_035", "efficientnet_b0", "xception"])
def test_a_network_is_still_itself(name: str) -> None:
    net = create_model(name, num_classes=10).train()
    keys, text, kinds = list(net.state_dict()), str(net), [type(layer) for layer in net.modules()]
    put(net)
    assert any(type(layer) is DepthwiseConv2d for layer in net.modules())
    again = pickle.loads(pickle.dumps(net))
    assert (list(again.state_dict()), str(again)) == (keys, text)
    part(net)
    assert [type(layer) for layer in net.modules()] == kinds


@pytest.mark.parametrize(("ours", "sides"), [(DEPTHWISE[0], {3}), (DEPTHWISE[1], {5})], ids=["3x3", "5x5"])
def test_each_size_is_replaced_by_itself(ours: Replacement, sides: set[int]) -> None:
    net = create_model("efficientnet_b0", num_classes=10)
    ours.change(net)
    changed = {layer.kernel_size[0] for layer in net.modules() if type(layer) is DepthwiseConv2d}
    assert changed == sides == {layer.kernel_size[0] for layer in ours.find(net)}
    assert ours.make(32).kernel_size[0] in sides


@pytest.mark.parametrize(
    "make",
    [
        lambda: create_model("mobilenet_v2_035", num_classes=10, drop_rate=0.0),
        lambda: create_model("efficientnet_b0", num_classes=10, drop_rate=0.0, drop_path_rate=0.0),
    ],
    ids=["mobilenet_v2_035", "efficientnet_b0"],
)
def test_a_network_learns_the_same(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = make().train()
    x, labels = torch.randn(4, 3, 224, 224), torch.arange(4)

    def gradients(net: nn.Module, *, exact: bool) -> Tensor:
        execution = choose_execution(CPU, exact=exact, net=net)
        if not exact:
            execution = dataclasses.replace(execution, autocast=None, replaced=DEPTHWISE)
        forward = prepare(net, execution)
        at = x.to(next(net.parameters()).dtype, memory_format=LAST)
        nn.functional.cross_entropy(forward(at), labels).backward()
        return torch.cat([p.grad.double().flatten() for p in net.parameters() if p.grad is not None])

    expected = gradients(copy.deepcopy(net).double(), exact=True)
    assert (gradients(net, exact=False) - expected).norm() < 0.01 * expected.norm()
