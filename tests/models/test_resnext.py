"""ResNeXt against Xie et al. 2016."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.weights import load_foreign
from counting import count_macs, meta_model
from peers import assert_same_outputs, randomise_norms

IMAGENET = ["resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"]
CIFAR = ["resnext29_8x64d_cifar", "resnext29_16x64d_cifar"]


def stage_params(cardinality: int, width: int, in_chans: int, out_chans: int, depth: int) -> int:
    """Parameters of a stage of Figure 3(c): `depth` blocks of convolutions and norms, one projection."""
    mid = cardinality * width
    block = mid * 9 * width + mid * out_chans + 2 * mid + 2 * mid + 2 * out_chans
    first = in_chans * mid + in_chans * out_chans + 2 * out_chans
    return depth * block + first + (depth - 1) * out_chans * mid


def imagenet_params(cardinality: int, width: int, depths: tuple[int, ...]) -> int:
    """Table 1, row by row."""
    total, in_chans = 3 * 49 * 64 + 2 * 64, 64
    for i, depth in enumerate(depths):
        total += stage_params(cardinality, width * 2**i, in_chans, 256 * 2**i, depth)
        in_chans = 256 * 2**i
    return total + 2048 * 1000 + 1000


def cifar_params(cardinality: int, width: int) -> int:
    """Section 5.3: a 3x3 convolution of 64 filters, then three stages of three blocks, to ten classes."""
    total, in_chans = 3 * 9 * 64 + 2 * 64, 64
    for i in range(3):
        total += stage_params(cardinality, width * 2**i, in_chans, 256 * 2**i, 3)
        in_chans = 256 * 2**i
    return total + 1024 * 10 + 10


@pytest.mark.parametrize(
    ("name", "derived", "params"),
    [
        # The last column: torchvision's count, or (CIFAR) that of the authors' code rebuilt.
        pytest.param(IMAGENET[0], imagenet_params(32, 4, (3, 4, 6, 3)), 25_028_904, id="50_32x4d"),
        pytest.param(IMAGENET[1], imagenet_params(32, 4, (3, 4, 23, 3)), 44_177_704, id="101_32x4d"),
        pytest.param(IMAGENET[2], imagenet_params(32, 8, (3, 4, 23, 3)), 88_791_336, id="101_32x8d"),
        pytest.param(IMAGENET[3], imagenet_params(64, 4, (3, 4, 23, 3)), 83_455_272, id="101_64x4d"),
        pytest.param(CIFAR[0], cifar_params(8, 64), 34_426_698, id="29_8x64d"),
        pytest.param(CIFAR[1], cifar_params(16, 64), 68_155_210, id="29_16x64d"),
    ],
)
def test_parameters(name: str, derived: int, params: int) -> None:
    assert sum(p.numel() for p in meta_model(name).parameters()) == derived == params


@pytest.mark.parametrize(
    ("name", "size", "macs"),
    [
        ("resnext50_32x4d", 224, 4_230_479_872),
        ("resnext101_32x4d", 224, 7_969_996_800),
        ("resnext101_32x8d", 224, 16_414_015_488),
        ("resnext29_8x64d_cifar", 32, 5_387_266_048),
    ],
)
def test_macs(name: str, size: int, macs: int) -> None:
    assert count_macs(meta_model(name), size) == macs


def test_cifar_with_a_hundred_classes() -> None:
    net = meta_model("resnext29_8x64d_cifar", num_classes=100)
    assert sum(p.numel() for p in net.parameters()) == 34_518_948


def test_blocks_of_table_one() -> None:
    for i, stage in enumerate(meta_model("resnext50_32x4d").stages):
        for block in stage:
            conv = block.conv2.conv
            assert (conv.in_channels, conv.out_channels, conv.groups) == (128 * 2**i, 128 * 2**i, 32)
            assert block.conv3.conv.out_channels == 256 * 2**i
        assert stage[0].conv2.conv.stride[0] == (1 if i == 0 else 2)


def test_grouped_convolution_equals_separate_paths() -> None:
    """Figure 3: forms (a) and (c) of a block are one function."""
    torch.manual_seed(0)
    block = meta_model("resnext50_32x4d").stages[0][1].to_empty(device="cpu").eval()
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.reset_parameters()
    x = torch.randn(1, 256, 5, 5)
    total = x
    for path in range(32):
        own = slice(4 * path, 4 * path + 4)
        y = torch.relu(block.conv1.norm(block.conv1.conv(x)))[:, own]
        y = nn.functional.conv2d(y, block.conv2.conv.weight[own], padding=1)
        y = torch.relu(y / math.sqrt(1 + block.conv2.norm.eps))
        y = nn.functional.conv2d(y, block.conv3.conv.weight[:, own])
        total = total + y / math.sqrt(1 + block.conv3.norm.eps)
    torch.testing.assert_close(block(x), torch.relu(total), rtol=1e-4, atol=1e-5)


def test_cifar_maps_of_section_5_3() -> None:
    net = meta_model("resnext29_8x64d_cifar")
    maps = net.forward_stages(torch.empty(1, 3, 32, 32, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 32, 32), (256, 32, 32), (512, 16, 16), (1024, 8, 8)]
    layers = [
        path
        for path, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and "shortcut" not in path
    ]
    assert len(layers) == 29


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext29_8x64d_cifar"])
@pytest.mark.parametrize(("kind", "per_block"), [("A", 0), ("C", 1)])
def test_shortcut_option(name: str, kind: str, per_block: int) -> None:
    net = meta_model(name, shortcut=kind)
    projections = [path for path in net.state_dict() if "shortcut.conv" in path]
    assert len(projections) == per_block * sum(len(stage) for stage in net.stages)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext29_8x64d_cifar"])
def test_options_of_training(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(
        name, cardinality=2, bottleneck_width=4, zero_init_last=True, drop_path_rate=0.6, num_classes=3
    )
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.6 * i / (len(rates) - 1) for i in range(len(rates))])
    block = net.eval().stages[1][1]
    x = torch.randn(1, 512, 4, 4)
    assert torch.equal(block(x), torch.relu(x))
    assert block.conv2.conv.groups == 2 and block.conv2.conv.out_channels == 16


def test_cifar_depth_and_pooling() -> None:
    net = create_model(
        "resnext29_8x64d_cifar",
        cardinality=2,
        bottleneck_width=4,
        blocks_per_stage=1,
        global_pool="max",
        num_classes=0,
    ).eval()
    assert [len(stage) for stage in net.stages] == [1, 1, 1]
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(net(x), net.forward_features(x).amax(dim=(2, 3)))


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext29_8x64d_cifar"])
def test_weights_follow_he_over_outputs(name: str) -> None:
    torch.manual_seed(0)
    conv = create_model(name).stages[1][0].conv1.conv
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / conv.out_channels), rel=0.03)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("resnext50_32x4d", "cardinality"),
        ("resnext50_32x4d", "bottleneck_width"),
        ("resnext29_8x64d_cifar", "cardinality"),
        ("resnext29_8x64d_cifar", "bottleneck_width"),
        ("resnext29_8x64d_cifar", "blocks_per_stage"),
    ],
)
def test_wrong_counts(name: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"`{field}`=0; expected a whole number of at least 1"):
        meta_model(name, **{field: 0})


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext29_8x64d_cifar"])
def test_wrong_shortcut(name: str) -> None:
    with pytest.raises(ValueError, match="`shortcut`='Z'; allowed are"):
        meta_model(name, shortcut="Z")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision", "resnext50_32x4d"),
        ("torchvision", "resnext101_32x8d"),
        ("torchvision", "resnext101_64x4d"),
        ("timm", "resnext50_32x4d"),
        ("timm", "resnext101_32x4d"),
        ("timm", "resnext101_32x8d"),
        ("timm", "resnext101_64x4d"),
    ],
)
def test_equal_to_public_implementations(source: str, name: str) -> None:
    torch.manual_seed(0)
    make = torchvision.models.get_model if source == "torchvision" else timm.create_model
    peer = randomise_norms(make(name), 0.3, 0.9)
    net = create_model(name).eval()
    load_foreign(net, peer.state_dict(), source=source)
    x = torch.randn(1, 3, 96, 96)
    act = "relu" if source == "torchvision" else "act1"
    assert_same_outputs(net, peer, x, [act, "layer1", "layer2", "layer3", "layer4"])
