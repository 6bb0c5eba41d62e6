"""ResNet and plain networks against He et al. 2015."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.models.registry import UnknownNameError
from convatlas.weights import load_foreign
from counting import count_macs, meta_model
from peers import assert_same_outputs, randomise_norms

BOTTLENECKS = [f"resnet{depth}_{version}" for depth in (50, 101, 152) for version in ("v1", "v1_5")]


@pytest.mark.parametrize(
    ("name", "shortcut", "params", "macs"),
    [
        # Basic blocks with their shortcuts removed, counted apart from this package.
        pytest.param("plain18", None, 11_515_688, 1_794_805_760, id="plain18"),
        pytest.param("plain34", None, 21_623_848, 3_644_493_824, id="plain34"),
        # Option A adds nothing to a plain network; option B is torchvision's.
        pytest.param("resnet18", "A", 11_515_688, 1_794_805_760, id="resnet18-A"),
        pytest.param("resnet18", "B", 11_689_512, 1_814_073_344, id="resnet18-B"),
        pytest.param("resnet34", "A", 21_623_848, 3_644_493_824, id="resnet34-A"),
        pytest.param("resnet34", "B", 21_797_672, 3_663_761_408, id="resnet34-B"),
        # Option C projects in the blocks where B does not: 3 of 3, 3 of 4, 5 of 6 and 2 of 3 in the stages.
        pytest.param(
            "resnet34",
            "C",
            22_716_840,
            3_663_761_408 + 3 * 64**2 * 56**2 + 3 * 128**2 * 28**2 + 5 * 256**2 * 14**2 + 2 * 512**2 * 7**2,
            id="resnet34-C",
        ),
        pytest.param("resnet50_v1", "B", 25_557_032, 3_857_973_248, id="resnet50_v1"),
        pytest.param("resnet50_v1_5", "B", 25_557_032, 4_089_184_256, id="resnet50_v1_5"),
        pytest.param("resnet101_v1", "B", 44_549_160, 7_570_194_432, id="resnet101_v1"),
        pytest.param("resnet101_v1_5", "B", 44_549_160, 7_801_405_440, id="resnet101_v1_5"),
        pytest.param("resnet152_v1", "B", 60_192_808, 11_282_415_616, id="resnet152_v1"),
        pytest.param("resnet152_v1_5", "B", 60_192_808, 11_513_626_624, id="resnet152_v1_5"),
    ],
)
def test_size(name: str, shortcut: str | None, params: int, macs: int) -> None:
    net = meta_model(name, **({} if shortcut is None else {"shortcut": shortcut}))
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net) == macs


@pytest.mark.parametrize("name", ["plain18", "plain34", "resnet18", "resnet34", *BOTTLENECKS])
def test_name_counts_the_layers_outside_shortcuts(name: str) -> None:
    layers = [
        path
        for path, layer in meta_model(name).named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and "shortcut" not in path
    ]
    assert len(layers) == int(name.removeprefix("resnet").removeprefix("plain").split("_")[0])


@pytest.mark.parametrize(
    ("name", "chans"),
    [("plain34", (64, 64, 128, 256, 512)), ("resnet50_v1", (64, 256, 512, 1024, 2048))],
)
def test_maps_of_table_one(name: str, chans: tuple[int, ...]) -> None:
    net = meta_model(name)
    maps = net.forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    sizes = (112, 56, 28, 14, 7)
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in zip(chans, sizes, strict=True)]


@pytest.mark.parametrize(
    ("alias", "name"), [(f"resnet{depth}", f"resnet{depth}_v1_5") for depth in (50, 101, 152)]
)
def test_bare_name_is_v1_5(alias: str, name: str) -> None:
    assert meta_model(alias).name == name


@pytest.mark.parametrize(("version", "strides"), [("v1", (2, 1)), ("v1_5", (1, 2))])
def test_version_says_where_a_block_strides(version: str, strides: tuple[int, int]) -> None:
    net = meta_model(f"resnet50_{version}")
    for stage in list(net.stages)[1:]:
        assert (stage[0].conv1.conv.stride[0], stage[0].conv2.conv.stride[0]) == strides
        assert stage[0].shortcut.conv.stride == (2, 2)
        assert stage[1].conv1.conv.stride == stage[1].conv2.conv.stride == (1, 1)


def test_plain_network_has_no_shortcut_and_no_option_of_one() -> None:
    assert not any("shortcut" in key for key in meta_model("plain18").state_dict())
    with pytest.raises(UnknownNameError, match=r"plain18 has no option `shortcut` .*'B'"):
        meta_model("plain18", shortcut="B")
    with pytest.raises(UnknownNameError, match="plain18 has no option `drop_path_rate`"):
        meta_model("plain18", drop_path_rate=0.1)


def test_weights_follow_he_and_norms_start_as_identity() -> None:
    torch.manual_seed(0)
    net = create_model("resnet18")
    for path, fan_in in {"stem": 3 * 49, "stages.1.0.conv1": 64 * 9, "stages.3.0.shortcut": 256}.items():
        weight = net.get_submodule(path).conv.weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
        assert abs(weight.mean().item()) < 0.05 * math.sqrt(2 / fan_in)
    assert net.head.fc.bias.count_nonzero() == 0
    assert net.head.fc.weight.abs().max().item() == pytest.approx(1 / math.sqrt(512), rel=1e-3)
    norm = net.stages[2][1].conv2.norm
    assert (norm.weight == 1).all() and (norm.bias == 0).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_last_makes_each_block_its_shortcut(name: str) -> None:
    block = create_model(name, zero_init_last=True).eval().stages[0][1]
    x = torch.randn(1, block.conv1.conv.in_channels, 4, 4)
    assert torch.equal(block(x), torch.relu(x))
    assert not torch.equal(create_model(name).eval().stages[0][1](x), torch.relu(x))


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    net = meta_model("resnet34", drop_path_rate=0.3)
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.3 * i / 15 for i in range(16)])


def test_drop_path_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = create_model("resnet18", drop_path_rate=0.5, num_classes=5)
    x = torch.randn(4, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_global_pool(global_pool: str) -> None:
    net = create_model("resnet18", num_classes=0, global_pool=global_pool).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net.forward_features(x)
    expected = maps.mean(dim=(2, 3)) if global_pool == "avg" else maps.amax(dim=(2, 3))
    torch.testing.assert_close(net(x), expected)


def test_depths_make_another_network() -> None:
    net = meta_model("resnet18", depths=(1, 2, 1, 1))
    assert [len(stage) for stage in net.stages] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        pytest.param("resnet18", {"shortcut": "D"}, "`shortcut`='D'; allowed are \"A\"", id="shortcut"),
        pytest.param("resnet18", {"stride_on": "1x1"}, '`stride_on`="1x1" needs `bottleneck`', id="1x1"),
        pytest.param("resnet50", {"stride_on": "5x5"}, "`stride_on`='5x5'; allowed are", id="stride_on"),
        pytest.param(
            "plain18", {"depths": (2, 2, 2)}, r"`depths`=\(2, 2, 2\); expected a tuple of 4", id="3"
        ),
        pytest.param("plain18", {"depths": 8}, "`depths`=8; expected a tuple of 4", id="no-tuple"),
        pytest.param("resnet18", {"depths": (2, 0, 2, 2)}, "`depths`=0; expected a whole number", id="empty"),
        pytest.param("resnet18", {"drop_path_rate": 1.0}, "`drop_path_rate`=1.0; expected a rate", id="rate"),
        pytest.param("resnet18", {"global_pool": "sum"}, "`global_pool`='sum'; allowed are", id="pool"),
    ],
)
def test_wrong_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model(name, **options)


@pytest.mark.parametrize(
    ("source", "theirs", "ours"),
    [
        pytest.param(source, theirs, ours, id=f"{source}-{theirs}")
        for source in ("torchvision", "timm")
        for theirs, ours in {
            "resnet18": "resnet18",
            "resnet34": "resnet34",
            "resnet50": "resnet50_v1_5",
            "resnet101": "resnet101_v1_5",
            "resnet152": "resnet152_v1_5",
        }.items()
    ],
)
def test_equal_to_public_implementations(source: str, theirs: str, ours: str) -> None:
    torch.manual_seed(0)
    make = torchvision.models.get_model if source == "torchvision" else timm.create_model
    peer = randomise_norms(make(theirs), 0.3, 0.9)
    net = create_model(ours).eval()
    load_foreign(net, peer.state_dict(), source=source)
    x = torch.randn(1, 3, 96, 96)
    act = "relu" if source == "torchvision" else "act1"
    assert_same_outputs(net, peer, x, [act, "layer1", "layer2", "layer3", "layer4"])
