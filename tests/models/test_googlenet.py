"""GoogLeNet against Szegedy et al. 2014, CS231n's derivation and torchvision."""

import math

import pytest
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.blocks.norm import LocalResponseNorm
from convatlas.weights import load_foreign
from counting import MacCounter, count_macs
from peers import randomise, relative

# Table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; and px of the map.
TABLE_1 = [
    (64, 96, 128, 16, 32, 32, 28),
    (128, 128, 192, 32, 96, 64, 28),
    (192, 96, 208, 16, 48, 64, 14),
    (160, 112, 224, 24, 64, 64, 14),
    (128, 128, 256, 24, 64, 64, 14),
    (112, 144, 288, 32, 64, 64, 14),
    (256, 160, 320, 32, 128, 128, 14),
    (256, 160, 320, 32, 128, 128, 7),
    (384, 192, 384, 48, 128, 128, 7),
]
# 7x7x3x64 on 112 px, 1x1x64x64 and 3x3x64x192 on 56 px, as (weights, biases, px).
STEM = [(49 * 3 * 64, 64, 112), (64 * 64, 64, 56), (9 * 64 * 192, 192, 56)]


def meta_model(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options).eval()


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def aux_params(chans: int) -> int:
    """Section 5: 1x1 convolution of 128, 1,024 units on 4x4 px, 1,000 classes."""
    return (chans * 128 + 128) + (128 * 16 * 1024 + 1024) + (1024 * 1000 + 1000)


def derive(*, bottlenecks: bool) -> tuple[int, int, list[int]]:
    """Parameters and MACs of the main network, and the channels after each module, from the table."""
    layers, chans, ends = list(STEM), 192, []
    for c1, r3, c3, r5, c5, project, px in TABLE_1:
        if bottlenecks:
            reduced = [(chans * r3, r3, px), (chans * r5, r5, px), (chans * project, project, px)]
            layers += [*reduced, (chans * c1, c1, px), (9 * r3 * c3, c3, px), (25 * r5 * c5, c5, px)]
            chans = c1 + c3 + c5 + project
        else:
            layers += [(chans * c1, c1, px), (9 * chans * c3, c3, px), (25 * chans * c5, c5, px)]
            chans += c1 + c3 + c5
        ends.append(chans)
    layers.append((chans * 1000, 1000, 1))
    return sum(w + b for w, b, _ in layers), sum(w * px * px for w, _, px in layers), ends


@pytest.mark.parametrize(
    ("name", "main", "aux", "macs"),
    [
        ("googlenet", 6_998_552, (3_188_840, 3_190_888), 1_582_671_872),
        # torchvision; its side classifiers have batch norm, scale and shift for one bias.
        ("googlenet_tv", 6_624_904, (3_188_968, 3_191_016), 1_498_376_192),
    ],
)
def test_size_counted_elsewhere(name: str, main: int, aux: tuple[int, int], macs: int) -> None:
    net = meta_model(name)
    assert [count_params(head) for head in net.aux_heads] == list(aux)
    assert count_params(net) == main + sum(aux)
    assert count_params(meta_model(name, aux_heads=False)) == main
    assert count_macs(net, 224) == macs


@pytest.mark.parametrize(("name", "bottlenecks"), [("googlenet", True), ("googlenet_naive", False)])
def test_size_derived_from_table_1(name: str, bottlenecks: bool) -> None:
    params, macs, ends = derive(bottlenecks=bottlenecks)
    net = meta_model(name)
    assert count_params(net) == params + aux_params(ends[2]) + aux_params(ends[5])
    assert count_params(meta_model(name, aux_heads=False)) == params
    assert count_macs(net, 224) == macs
    assert net.num_features == ends[-1]


def test_naive_module_of_the_slides() -> None:
    # CS231n: on 28x28x256, convolutions of 128, 192 and 96 make 854M multiply-adds and 672 channels.
    from convatlas.models.googlenet import GoogLeNetConfig, Row, make_module

    config = GoogLeNetConfig(bottlenecks=False)
    with torch.device("meta"):
        module = make_module(256, Row(128, 0, 192, 0, 96, 0), config)
    with MacCounter() as counter:
        out = module(torch.empty(1, 256, 28, 28, device="meta"))
    assert counter.macs == 854_196_224
    assert out.shape == (1, 672, 28, 28)


def test_maps_of_table_1() -> None:
    maps = meta_model("googlenet").forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(64, 112, 112), (192, 56, 56), (480, 28, 28), (832, 14, 14), (1024, 7, 7)]


def test_paper_net_has_5x5_and_local_response_norm_and_torchvisions_has_neither() -> None:
    paper, theirs = meta_model("googlenet"), meta_model("googlenet_tv")
    kernels = [{m.kernel_size for m in net.modules() if isinstance(m, nn.Conv2d)} for net in (paper, theirs)]
    assert kernels == [{(7, 7), (1, 1), (3, 3), (5, 5)}, {(7, 7), (1, 1), (3, 3)}]
    norms = [sum(isinstance(m, LocalResponseNorm) for m in net.modules()) for net in (paper, theirs)]
    assert norms == [2, 0]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in paper.modules())


def test_dropout_is_40_per_cent_and_70_in_side_classifiers() -> None:
    net = meta_model("googlenet", aux_drop_rate=0.5)
    assert net.head.dropout.p == 0.4
    assert [m.p for m in net.aux_heads.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert [m.p for m in meta_model("googlenet").aux_heads.modules() if isinstance(m, nn.Dropout)] == [
        0.7,
        0.7,
    ]


def test_side_classifiers_average_5x5_px_at_stride_3() -> None:
    pool = meta_model("googlenet").aux_heads[0].body[0]
    x = torch.randn(2, 3, 14, 14)
    assert torch.equal(pool(x), nn.functional.avg_pool2d(x, 5, stride=3))
    assert pool(torch.randn(2, 3, 3, 5)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_tv"])
def test_side_classifiers_answer_beside_the_end(name: str) -> None:
    net = create_model(name, num_classes=7).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        out = net.forward_aux(x)
        assert torch.equal(out.main, net(x))
    assert [a.shape for a in out.aux] == [(2, 7), (2, 7)]
    assert not torch.equal(out.aux[0], out.aux[1])


def test_no_side_classifiers() -> None:
    net = create_model("googlenet", num_classes=7, aux_heads=False).eval()
    assert net.forward_aux(torch.randn(1, 3, 32, 32)).aux == ()


def test_reset_classifier_resets_the_side_classifiers() -> None:
    net = create_model("googlenet", num_classes=7).eval()
    net.reset_classifier(5, global_pool="max")
    out = net.forward_aux(torch.randn(1, 3, 32, 32))
    assert [out.main.shape, *(a.shape for a in out.aux)] == [(1, 5)] * 3
    assert all(bool((head.fc.bias == 0).all()) for head in net.aux_heads)
    assert net.head.global_pool == "max"


def test_too_small_for_the_side_classifiers_call() -> None:
    with pytest.raises(ValueError, match="the input is 30x64 px; the smallest size that works is 31x31"):
        create_model("googlenet", num_classes=2).forward_aux(torch.randn(1, 3, 30, 64))


def test_initial_weights_of_the_caffe_replica() -> None:
    net = create_model("googlenet")
    conv = net.stages[1][2].conv3x3[1].conv  # 3b: 128 to 192 channels, 3x3
    assert conv.weight.std().item() == pytest.approx(1 / math.sqrt(128 * 9), rel=0.02)
    assert bool((conv.bias == 0.2).all())
    hidden = net.aux_heads[0].body[3]
    assert bool((hidden.bias == 0.2).all())
    assert bool((net.head.fc.bias == 0).all())


def test_initial_weights_of_torchvision() -> None:
    net = create_model("googlenet_tv")
    assert net.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert net.stages[1][2].conv3x3[1].conv.weight.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("field", ["drop_rate", "aux_drop_rate"])
def test_refuses_a_rate_of_one(field: str) -> None:
    with pytest.raises(ValueError, match=f"`{field}`=1.0; expected a rate of at least 0 and below 1"):
        create_model("googlenet", **{field: 1.0})


@torch.no_grad()
def test_equal_to_torchvision_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True))
    net = create_model("googlenet_tv").eval()
    load_foreign(net, peer, source="torchvision")
    seen: list[torch.Tensor] = []
    taps = [peer.conv1, peer.conv3, peer.inception3b, peer.inception4e, peer.inception5b]
    for module in taps:
        module.register_forward_hook(lambda _, __, out: seen.append(out))
    x = torch.randn(2, 3, 96, 96)
    logits = peer(x)
    assert logits.abs().max() > 0.1
    assert relative(net(x), logits) < 1e-4
    maps = net.forward_stages(x)
    assert max(relative(a, b) for a, b in zip(maps, seen, strict=True)) < 1e-4
    peer.train()
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.Dropout):
            layer.eval()
    theirs = peer(x)
    out = net.forward_aux(x)
    assert relative(out.aux[0], theirs.aux_logits1) < 1e-4
    assert relative(out.aux[1], theirs.aux_logits2) < 1e-4
