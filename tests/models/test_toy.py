"""The toy network of CS231n."""

import math

import pytest
import torch

from convatlas import create_model
from counting import MacCounter


@pytest.mark.parametrize(
    ("kernel_size", "params", "macs"),
    [
        # 12 filters over 3 channels, then 16 x 16 x 12 inputs to 10 outputs, each with a bias.
        pytest.param(1, 12 * 4 + 30_730, 32 * 32 * 12 * 3 + 30_720, id="1x1"),
        pytest.param(3, 31_066, 362_496, id="3x3"),
        pytest.param(5, 31_642, 952_320, id="5x5"),
    ],
)
def test_size(kernel_size: int, params: int, macs: int) -> None:
    net = create_model("convnet_cs231n", kernel_size=kernel_size)
    assert sum(p.numel() for p in net.parameters()) == params
    with MacCounter() as counter:
        net(torch.zeros(1, 3, 32, 32))
    assert counter.macs == macs


def test_default_is_3x3() -> None:
    assert sum(p.numel() for p in create_model("convnet_cs231n").parameters()) == 31_066


def test_volumes_of_the_notes() -> None:
    net = create_model("convnet_cs231n")
    x = torch.randn(1, 3, 32, 32)
    assert [tuple(m.shape[1:]) for m in net.forward_stages(x)] == [(12, 32, 32), (12, 16, 16)]
    assert net(x).shape == (1, 10)


def test_forward_is_conv_relu_pool_fc() -> None:
    net = create_model("convnet_cs231n").eval()
    x = torch.randn(2, 3, 32, 32)
    maps = torch.nn.functional.conv2d(x, net.stem.conv.weight, net.stem.conv.bias, padding=1).clamp(min=0)
    pooled = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
    torch.testing.assert_close(net(x), net.head.fc(pooled.flatten(1)))


def test_drop_rate_drops_before_fc() -> None:
    torch.manual_seed(0)
    net = create_model("convnet_cs231n", drop_rate=0.5)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    net = create_model("convnet_cs231n")
    assert net.stem.conv.weight.std().item() == pytest.approx(math.sqrt(2 / 27), rel=0.15)
    assert net.head.fc.weight.std().item() == pytest.approx(math.sqrt(2 / 3072), rel=0.03)
    assert net.stem.conv.bias.count_nonzero() == net.head.fc.bias.count_nonzero() == 0


@pytest.mark.parametrize(
    ("kernel_size", "expected"),
    [(2, "an odd whole number, such as 3"), (0, "a whole number"), (3.0, "a whole number")],
)
def test_kernel_needs_a_centre(kernel_size: object, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"`kernel_size`={kernel_size}; expected {expected}"):
        create_model("convnet_cs231n", kernel_size=kernel_size)
