"""VGG against Simonyan and Zisserman 2014, Tables 1 and 2, and against torchvision and timm."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.models.vgg import VGG, VGGConfig
from convatlas.weights import load_foreign
from convatlas.weights.keymap import find_table
from counting import MacCounter, meta_model
from peers import randomise

MAPPED = [f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")]

# Configuration C by Table 1: the 3x3 convolutions of B, and three 1x1 convolutions.
C_PARAMS = 133_047_848 + 256 * 257 + 2 * 512 * 513
C_MACS = 11_308_466_176 + 256 * 256 * 56**2 + 512 * 512 * (28**2 + 14**2)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        pytest.param("vgg11", 132_863_336, 7_609_090_048, id="A"),
        pytest.param("vgg11_lrn", 132_863_336, 7_609_090_048, id="A-LRN"),
        pytest.param("vgg13", 133_047_848, 11_308_466_176, id="B"),
        pytest.param("vgg16_1x1", C_PARAMS, C_MACS, id="C"),
        pytest.param("vgg16", 138_357_544, 15_470_264_320, id="D"),
        pytest.param("vgg19", 143_667_240, 19_632_062_464, id="E"),
        pytest.param("vgg11_bn", 132_868_840, 7_609_090_048, id="A-bn"),
        pytest.param("vgg13_bn", 133_053_736, 11_308_466_176, id="B-bn"),
        pytest.param("vgg16_bn", 138_365_992, 15_470_264_320, id="D-bn"),
        pytest.param("vgg19_bn", 143_678_248, 19_632_062_464, id="E-bn"),
    ],
)
def test_size(name: str, params: int, macs: int) -> None:
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == params
    with MacCounter() as counter:
        net(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.macs == macs


@pytest.mark.parametrize("name", ["vgg11", "vgg11_lrn", "vgg13", "vgg16_1x1", "vgg16", "vgg19", "vgg19_bn"])
def test_name_counts_the_weight_layers(name: str) -> None:
    layers = [m for m in meta_model(name).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name.removeprefix("vgg").split("_")[0])


def test_configuration_c_ends_three_stages_with_a_1x1() -> None:
    kernels = [
        [m.kernel_size[0] for m in stage.modules() if isinstance(m, nn.Conv2d)]
        for stage in meta_model("vgg16_1x1").stages
    ]
    assert kernels == [[3, 3], [3, 3], [3, 3, 1], [3, 3, 1], [3, 3, 1]]


def test_maps_of_table_one() -> None:
    maps = meta_model("vgg16").forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 224, 224), (128, 112, 112), (256, 56, 56), (512, 28, 28), (512, 14, 14), (512, 7, 7)
    ]  # fmt: skip


def test_local_norm_follows_the_first_convolution_alone() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        plain, normed = create_model("vgg11"), create_model("vgg11_lrn")
    assert plain.state_dict().keys() == normed.state_dict().keys()
    stages = [net.stages[:2].to_empty(device="cpu") for net in (plain, normed)]
    for net, part in zip((plain, normed), stages, strict=True):
        net.init_weights(part)
    stages[1].load_state_dict(stages[0].state_dict())
    first = stages[0][0](100 * torch.randn(1, 3, 8, 8))
    expected = nn.functional.local_response_norm(first, 5, 5e-4, 0.75, 2.0)
    torch.testing.assert_close(stages[1][0].lrn(first), expected)
    torch.testing.assert_close(stages[1][1](expected), stages[0][1](expected))


@pytest.mark.parametrize("init_std", [None, 0.1], ids=["glorot", "net-A"])
def test_initialisation(init_std: float | None) -> None:
    torch.manual_seed(0)
    net = meta_model("vgg13_bn", init_std=init_std)
    conv = net.stages[3].conv1.to_empty(device="cpu")
    net.init_weights(conv)
    # Glorot: U(-a, a) with a^2 = 6 / (inputs + outputs), so the variance is a third of a^2.
    expected = init_std or math.sqrt(2 / (9 * 256 + 9 * 512))
    assert conv.conv.weight.std().item() == pytest.approx(expected, rel=0.01)
    assert conv.conv.bias.count_nonzero() == conv.norm.bias.count_nonzero() == 0
    assert (conv.norm.weight == 1).all()


def test_dropout_stands_after_each_hidden_layer() -> None:
    head = meta_model("vgg16").head
    assert [type(m).__name__ for m in head.hidden] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU"]
    assert head.hidden.dropout2.p == head.dropout.p == 0.5
    head = meta_model("vgg16", drop_rate=0.2).head
    assert head.hidden.dropout2.p == head.dropout.p == 0.2


def test_own_depths() -> None:
    with torch.device("meta"):
        net = VGG(VGGConfig(depths=(1, 1, 1, 1, 1), num_classes=3))
    assert net(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 3)


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_every_key_of_the_peer_has_its_place(name: str, source: str) -> None:
    with torch.device("meta"):
        make = torchvision.models.get_model if source == "torchvision" else timm.create_model
        theirs = make(name).state_dict()
        ours = create_model(name).state_dict()
    table = find_table(name, source)
    mapped = {table.our_key(key): value.numel() for key, value in theirs.items()}
    assert mapped == {key: value.numel() for key, value in ours.items()}
    assert len(mapped) == len(theirs)


@pytest.mark.parametrize(
    ("name", "source"),
    [("vgg11", "timm"), ("vgg11_bn", "torchvision")],
)
def test_equals_the_peer(name: str, source: str) -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        make = torchvision.models.get_model if source == "torchvision" else timm.create_model
        peer = make(name, num_classes=50).eval()
    peer.to_empty(device="cpu")
    randomise(peer)
    net = create_model(name, num_classes=50).eval()
    load_foreign(net, peer.state_dict(), source=source)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = peer(x)
        assert expected.std() > 0.1 and (expected[0] - expected[1]).std() > 0.1
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
        for theirs, ours in zip(peer_stages(peer, x), net.forward_stages(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def peer_stages(peer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What enters each pooling of the peer, and what leaves the last one."""
    maps: list[torch.Tensor] = []
    for layer in peer.features:
        if isinstance(layer, nn.MaxPool2d):
            maps.append(x)
        x = layer(x)
    return [*maps, x]
