"""Steps in bfloat16 on maps that are hardly larger than the kernel, where torch forgets some gradients."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from convatlas.training.cpu.bf16_conv import Bf16SafeConv2d, make_bf16_safe
from convatlas.training.cpu.choose import choose_execution, prepare
from convatlas.training.cpu.fused_layers import part
from steps import assert_near, in_double, learn

LAST = torch.channels_last
# Options of the convolution; height and width.
SMALL: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "one pixel": ({"kernel_size": 3, "padding": 1}, (1, 1)),
    "one column": ({"kernel_size": 5, "padding": 2}, (5, 1)),
    "depthwise": ({"kernel_size": 3, "padding": 1, "groups": 32}, (1, 1)),
    "groups": ({"kernel_size": 3, "padding": 1, "groups": 4}, (2, 1)),
    "much padding": ({"kernel_size": 2, "padding": 1}, (3, 2)),
}


def spoil_memory() -> None:
    """Tensors made next are laid into what is freed here."""
    sizes = torch.logspace(1, 5, 25).int().tolist()
    _ = [
        torch.full((size,), torch.nan, dtype=kind)
        for size in sizes
        for kind in (torch.float32, torch.bfloat16)
    ]


@pytest.mark.parametrize(("options", "size"), SMALL.values(), ids=SMALL)
def test_all_gradients_are_written(options: dict[str, Any], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(32, 32, stride=2, bias=False, **options)).train().to(memory_format=LAST)
    x = torch.randn(8, 32, *size).contiguous(memory_format=LAST).requires_grad_()
    expected = in_double(net, x)
    make_bf16_safe(net)
    for _ in range(3):
        spoil_memory()
        net.zero_grad()
        x.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = learn(net, x)
        assert found[0].dtype == torch.bfloat16
        assert_near(found, expected, 0.01)


def test_only_convolutions_with_a_stride_are_changed_and_only_in_half_precision() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.ConvTranspose2d(8, 8, 3, stride=2),
    )
    text = str(net)
    execution = dataclasses.replace(choose_execution(torch.device("cpu"), net=net), replaced=())
    prepare(net, dataclasses.replace(execution, autocast=None))
    assert Bf16SafeConv2d not in map(type, net)
    prepare(net, dataclasses.replace(execution, autocast=torch.bfloat16))
    assert [type(layer) is Bf16SafeConv2d for layer in net] == [True, False, False, False]
    assert str(net) == text
    part(net)
    assert Bf16SafeConv2d not in map(type, net)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16 on larger maps"])
def test_what_torch_does_right_is_torchs(dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1)).train()
    x = torch.randn(2, 8, *((8, 8) if dtype else (2, 2)))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        expected = net(x)
        make_bf16_safe(net)
        assert torch.equal(net(x), expected)
