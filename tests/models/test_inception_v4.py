"""Inception v4 against Szegedy et al. 2016 and timm."""

import pytest
import timm
import torch
from torch import nn

from convatlas import create_model
from convatlas.weights import load_foreign
from counting import MacCounter
from peers import randomise, relative


def meta_model(**options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model("inception_v4", **options).eval()


def test_size_counted_elsewhere() -> None:
    net = meta_model()
    assert sum(p.numel() for p in net.parameters()) == 42_679_816  # timm, Cadene and pytorchcv
    with MacCounter() as counter:
        net(torch.empty(1, 3, 299, 299, device="meta"))
    assert counter.macs == 12_253_974_624


def test_maps_of_figures_3_and_9() -> None:
    maps = meta_model().forward_stages(torch.empty(1, 3, 299, 299, device="meta"))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(64, 147, 147), (160, 73, 73), (384, 35, 35), (1024, 17, 17), (1536, 8, 8)]


def test_depths_add_modules() -> None:
    # Inception-A of Figure 4, layer by layer, with two numbers a channel for batch norm.
    convs = [(384, 96, 1), (384, 64, 1), (64, 96, 9), (384, 64, 1), (64, 96, 9), (96, 96, 9), (384, 96, 1)]
    module = sum(i * o * k + 2 * o for i, o, k in convs)
    more, fewer = meta_model(depths=(5, 7, 3)), meta_model()
    count = [sum(p.numel() for p in net.parameters()) for net in (more, fewer)]
    assert count[0] - count[1] == module


def test_mean_pool_leaves_out_the_padding() -> None:
    pools = [m for m in meta_model().modules() if isinstance(m, nn.AvgPool2d)]
    assert len(pools) == 4 + 7 + 3
    assert torch.allclose(pools[0](torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 5, 5))


def test_options_reach_the_head() -> None:
    net = meta_model(drop_rate=0.5, global_pool="max")
    assert (net.head.dropout.p, net.head.global_pool) == (0.5, "max")
    assert meta_model().head.dropout.p == 0.2


def test_initial_weights() -> None:
    net = create_model("inception_v4", num_classes=10, depths=(1, 1, 1))
    weight = net.stages[2][0].conv3x3[0].conv.weight  # 384 to 384 channels, 3x3
    assert weight.std().item() == pytest.approx((2 / (384 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ((4, 7), r"`depths`=\(4, 7\); expected a tuple of 3 numbers, for modules A, B and C"),
        ((4, 7, -1), "`depths`=-1; expected a whole number of at least 0"),
    ],
    ids=["two", "negative"],
)
def test_refuses_depths(depths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("inception_v4", depths=depths)


@torch.no_grad()
def test_equal_to_timm_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(timm.create_model("inception_v4"))
    net = create_model("inception_v4").eval()
    load_foreign(net, peer.state_dict(), source="timm")
    x = torch.randn(2, 3, 96, 96)
    logits = peer(x)
    assert logits.abs().max() > 0.1
    assert relative(net(x), logits) < 1e-4
    theirs = peer.forward_intermediates(x, intermediates_only=True)
    assert max(relative(a, b) for a, b in zip(net.forward_stages(x), theirs, strict=True)) < 1e-4
