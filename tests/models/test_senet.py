"""Squeeze-and-excitation networks against Hu et al. 2017."""

import math

import pytest
import timm
import torch

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.weights import load_foreign
from counting import count_macs, meta_model
from peers import assert_same_outputs, randomise_norms

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def gate_weights(depth: int, reduction: int = 16) -> int:
    """Weights that gates add, without biases: 2 / r times the sum of C^2 over the blocks."""
    first = 256 if depth >= 50 else 64
    chans = [first * 2**i for i, blocks in enumerate(DEPTHS[depth]) for _ in range(blocks)]
    return sum(2 * c * (c // reduction) for c in chans)


def gate_biases(depth: int) -> int:
    first = 256 if depth >= 50 else 64
    return sum(blocks * (first * 2**i + first * 2**i // 16) for i, blocks in enumerate(DEPTHS[depth]))


@pytest.mark.parametrize(
    ("name", "depth", "base_params", "base_macs"),
    [
        # The last two columns: the network without gates, from torchvision (SE-ResNet: with v1's stride).
        ("se_resnet18", 18, 11_689_512, 1_814_073_344),
        ("se_resnet34", 34, 21_797_672, 3_663_761_408),
        ("se_resnet50", 50, 25_557_032, 3_857_973_248),
        ("se_resnet101", 101, 44_549_160, 7_570_194_432),
        ("se_resnet152", 152, 60_192_808, 11_282_415_616),
        ("se_resnext50_32x4d", 50, 25_028_904, 4_230_479_872),
        ("se_resnext101_32x4d", 101, 44_177_704, 7_969_996_800),
    ],
)
def test_size_is_that_of_the_base_and_the_gates(
    name: str, depth: int, base_params: int, base_macs: int
) -> None:
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == base_params + gate_weights(depth) + gate_biases(depth)
    assert count_macs(net) == base_macs + gate_weights(depth)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # timm's legacy networks.
        ("se_resnet50", 28_088_024, 3_860_488_192),
        ("se_resnet152", 66_821_848, 11_288_993_792),
        ("se_resnext50_32x4d", 27_559_896, 4_232_994_816),
        ("senet154", 115_088_984, 20_688_363_520),
    ],
)
def test_size_counted_elsewhere(name: str, params: int, macs: int) -> None:
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net) == macs


def test_gates_without_biases_as_in_the_ablations() -> None:
    net = meta_model("se_resnet50", squeeze_bias=False)
    assert sum(p.numel() for p in net.parameters()) == 28_071_976


@pytest.mark.parametrize(
    ("reduction", "printed"), [(2, 45.7), (4, 35.7), (8, 30.7), (16, 28.1), (32, 26.9)], ids=str
)
def test_reduction_of_table_ten(reduction: int, printed: float) -> None:
    params = sum(p.numel() for p in meta_model("se_resnet50", reduction=reduction).parameters())
    assert params / 1e6 == pytest.approx(printed, abs=0.12)  # Table 10 adds rounded figures
    assert params == 25_557_032 + sum(
        blocks * (2 * c * (c // reduction) + c + c // reduction)
        for blocks, c in zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True)
    )


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50", "se_resnext50_32x4d", "senet154"])
def test_every_branch_ends_in_a_gate(name: str) -> None:
    for stage in meta_model(name).stages:
        for block in stage:
            assert isinstance(block.squeeze, SqueezeExcite)
            last = block.conv3 if hasattr(block, "conv3") else block.conv2
            assert block.squeeze.expand.out_channels == last.conv.out_channels
            assert block.squeeze.reduce.out_channels == last.conv.out_channels // 16


@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        pytest.param("se_resnet50", {}, (2, 1), id="se_resnet50"),
        pytest.param("se_resnet50", {"stride_on": "3x3"}, (1, 2), id="se_resnet50-3x3"),
        pytest.param("se_resnext50_32x4d", {}, (1, 2), id="se_resnext50"),
        pytest.param("senet154", {}, (1, 2), id="senet154"),
    ],
)
def test_where_a_block_strides(name: str, options: dict[str, object], strides: tuple[int, int]) -> None:
    block = meta_model(name, **options).stages[1][0]
    assert (block.conv1.conv.stride[0], block.conv2.conv.stride[0]) == strides


def test_stride_on_the_3x3_costs_what_libraries_count() -> None:
    assert count_macs(meta_model("se_resnet50", stride_on="3x3")) == 4_091_699_200


def test_senet154_is_a_modified_resnext152() -> None:
    net = meta_model("senet154")
    assert [conv.conv.kernel_size for conv in net.stem] == [(3, 3)] * 3
    assert [len(stage) for stage in net.stages] == [3, 8, 36, 3]
    for i, stage in enumerate(net.stages):
        for block in stage:
            # A ResNeXt-152 (64x4d) has as many channels in the 3x3, and twice as many in the first 1x1.
            assert (block.conv2.conv.out_channels, block.conv2.conv.groups) == (256 * 2**i, 64)
            assert block.conv1.conv.out_channels == 128 * 2**i
        assert stage[0].shortcut.conv.kernel_size == ((1, 1) if i == 0 else (3, 3))
    assert net.head.dropout.p == 0.2
    assert meta_model("senet154", drop_rate=0.0).head.dropout.p == 0.0


def test_reset_keeps_senet154_dropout() -> None:
    net = meta_model("senet154")
    net.reset_classifier(7)
    assert net.head.dropout.p == 0.2 and net.get_classifier().out_features == 7


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50", "se_resnext50_32x4d", "senet154"])
def test_maps_at_224(name: str) -> None:
    maps = meta_model(name).forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    assert [m.shape[-1] for m in maps] == [112, 56, 28, 14, 7]


@pytest.mark.parametrize("name", ["se_resnet50", "se_resnext50_32x4d", "senet154"])
@pytest.mark.parametrize(("kind", "per_block"), [("A", 0), ("C", 1)])
def test_shortcut_option(name: str, kind: str, per_block: int) -> None:
    net = meta_model(name, shortcut=kind)
    projections = [path for path in net.state_dict() if "shortcut.conv" in path]
    assert len(projections) == per_block * sum(len(stage) for stage in net.stages)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("se_resnet18", {}),
        ("se_resnet50", {}),
        ("se_resnext50_32x4d", {"cardinality": 2, "bottleneck_width": 8}),
    ],
)
def test_options_of_training(name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = create_model(name, zero_init_last=True, drop_path_rate=0.6, num_classes=3, **options)
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.6 * i / (len(rates) - 1) for i in range(len(rates))])
    block = net.eval().stages[0][1]
    x = torch.randn(1, net.feature_info[1].channels, 4, 4)
    assert torch.equal(block(x), torch.relu(x))


def test_weights_follow_he() -> None:
    torch.manual_seed(0)
    net = create_model("se_resnet50")
    squeeze = net.stages[3][0].squeeze
    for conv, fan_in in (
        (net.stages[2][0].conv2.conv, 256 * 9),
        (squeeze.reduce, 2048),
        (squeeze.expand, 128),
    ):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
    assert squeeze.reduce.bias.count_nonzero() == squeeze.expand.bias.count_nonzero() == 0


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50", "se_resnext50_32x4d", "senet154"])
def test_smallest_input(name: str) -> None:
    net = meta_model(name)
    assert net(torch.empty(2, 3, 3, 3, device="meta")).shape == (2, 1000)
    with pytest.raises(ValueError, match="the input is 2x2 px; the smallest size that works is 3x3"):
        net(torch.empty(2, 3, 2, 2, device="meta"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        pytest.param("se_resnet50", {"reduction": 0}, "`reduction`=0; expected a whole number", id="r-0"),
        pytest.param("se_resnet50", {"reduction": 257}, "`reduction`=257; expected at most 256", id="r-257"),
        pytest.param("se_resnet18", {"reduction": 65}, "`reduction`=65; expected at most 64", id="r-65"),
        pytest.param("se_resnet18", {"stride_on": "1x1"}, '`stride_on`="1x1" needs `bottleneck`', id="1x1"),
        pytest.param("se_resnet50", {"stride_on": "2x2"}, "`stride_on`='2x2'; allowed are", id="stride_on"),
        pytest.param("se_resnext50_32x4d", {"cardinality": 0}, "`cardinality`=0; expected", id="groups"),
        pytest.param("se_resnext50_32x4d", {"bottleneck_width": 0}, "`bottleneck_width`=0; exp", id="width"),
        pytest.param("senet154", {"cardinality": 32}, "senet154 has no option `cardinality`", id="senet154"),
    ],
)
def test_wrong_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model(name, **options)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("legacy_seresnet50", "se_resnet50"),
        ("legacy_seresnet101", "se_resnet101"),
        ("legacy_seresnet152", "se_resnet152"),
        ("legacy_seresnext50_32x4d", "se_resnext50_32x4d"),
        ("legacy_seresnext101_32x4d", "se_resnext101_32x4d"),
        ("legacy_senet154", "senet154"),
    ],
)
def test_equal_to_timm(theirs: str, ours: str) -> None:
    torch.manual_seed(0)
    peer = randomise_norms(timm.create_model(theirs), 0.3, 0.9)
    net = create_model(ours).eval()
    load_foreign(net, peer.state_dict(), source="timm")
    x = torch.randn(1, 3, 90, 90)  # 45 px at the first pooling, so that its rounding shows
    assert_same_outputs(net, peer, x, ["layer0", "layer1", "layer2", "layer3", "layer4"])
