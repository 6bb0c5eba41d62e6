"""MobileNetV2 against Sandler et al. 2018, and its inverted residual."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.blocks.inverted import InvertedResidual
from convatlas.blocks.separable import round_chans
from convatlas.weights import load_foreign
from counting import count_macs, meta_model

WIDTHS = {"035": 0.35, "050": 0.5, "075": 0.75, "100": 1.0, "130": 1.3, "140": 1.4}


@pytest.mark.parametrize(
    ("width", "params", "macs"),
    [
        pytest.param("035", 1_677_128, {224: 59_285_808, 96: 11_934_128}, id="035"),
        pytest.param("050", 1_968_680, {224: 97_131_840, 128: 32_578_560}, id="050"),
        pytest.param("100", 3_504_872, {224: 300_774_272, 160: 154_083_200}, id="100"),
        pytest.param("130", 5_386_792, {224: 509_374_560, 192: 374_675_840}, id="130"),
        pytest.param("140", 6_108_776, {224: 582_195_824, 96: 108_396_784}, id="140"),
    ],
)
def test_size(width: str, params: int, macs: dict[int, int]) -> None:
    net = meta_model(f"mobilenet_v2_{width}")
    assert sum(p.numel() for p in net.parameters()) == params
    assert {size: count_macs(net, size) for size in macs} == macs


def test_size_at_width_075_derived_from_table_two() -> None:
    # Table 2's channels times 0.75, as multiples of 8: 32, 16, 24, 32, 64, 96, 160 and 320.
    chans, params, size = 24, 27 * 24 + 2 * 24, 112
    macs = 27 * 24 * size**2
    for t, c, n, s in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 24, 3, 2),
        (6, 48, 4, 2),
        (6, 72, 3, 1),
        (6, 120, 3, 2),
        (6, 240, 1, 1),
    ]:
        for j in range(n):
            mid, out_size = t * chans, size // (s if j == 0 else 1)
            expand = chans * mid if t > 1 else 0
            params += expand + (2 * mid if t > 1 else 0) + 9 * mid + 2 * mid + mid * c + 2 * c
            macs += expand * size**2 + (9 * mid + mid * c) * out_size**2
            chans, size = c, out_size
    params += chans * 1280 + 2 * 1280 + 1281 * 1000
    macs += chans * 1280 * size**2 + 1280 * 1000
    assert (params, macs) == (2_636_424, 209_069_792)
    net = meta_model("mobilenet_v2_075")
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net, 224) == macs


def test_maps_of_table_two() -> None:
    maps = meta_model("mobilenet_v2_100").forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    expected = [(32, 112), (16, 112), (24, 56), (32, 28), (64, 14), (96, 14), (160, 7), (320, 7), (1280, 7)]
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in expected]


@pytest.mark.parametrize(("width", "last"), [("035", 1280), ("100", 1280), ("130", 1664), ("140", 1792)])
def test_last_convolution_widens_only_above_width_one(width: str, last: int) -> None:
    assert meta_model(f"mobilenet_v2_{width}").num_features == last


@pytest.mark.parametrize(
    ("chans", "rounded"), [(11.2, 16), (5.6, 8), (3, 8), (16, 16), (22.4, 24), (33.6, 32), (41.6, 40)]
)
def test_channels_round_to_multiples_of_eight_that_lose_no_tenth(chans: float, rounded: int) -> None:
    assert round_chans(chans) == rounded


@pytest.mark.parametrize("width_mult", [0.1, 0.6, 2])
def test_any_width_and_input_size(width_mult: float) -> None:
    net = create_model("mobilenet_v2_100", width_mult=width_mult, num_classes=3).eval()
    peer = torchvision.models.mobilenet_v2(width_mult=width_mult, num_classes=3)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in peer.parameters())
    assert net(torch.randn(1, 3, 33, 47)).shape == (1, 3)


def test_blocks_end_linear_and_add_where_shapes_agree() -> None:
    net = meta_model("mobilenet_v2_100")
    blocks = [block for stage in net.stages for block in stage]
    assert len(blocks) == 17
    assert not any(hasattr(block.project, "act") for block in blocks)
    assert [block.is_residual for block in blocks] == [
        stage_block > 0 for depth in (1, 2, 3, 4, 3, 3, 1) for stage_block in range(depth)
    ]
    assert blocks[0].expand is None and all(block.expand is not None for block in blocks[1:])


def test_block_is_the_sum_of_its_input_and_its_branch() -> None:
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, expansion=6).eval()
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(block(x) - x, block.project(block.depthwise(block.expand(x))))


@pytest.mark.parametrize("path", ["stages.4.0.expand.conv", "stages.6.0.depthwise.conv", "head.fc"])
def test_weights_are_a_truncated_normal(path: str) -> None:
    torch.manual_seed(0)
    weight = create_model("mobilenet_v2_100").get_submodule(path).weight
    assert weight.std().item() == pytest.approx(0.09 * 0.8796, rel=0.03)
    assert weight.abs().max().item() <= 0.18 + 1e-6


def test_zero_init_last_makes_each_residual_block_the_identity() -> None:
    block = create_model("mobilenet_v2_035", zero_init_last=True).eval().stages[3][1]
    x = torch.randn(1, block.project.conv.out_channels, 4, 4)
    assert torch.equal(block(x), x)
    assert not torch.equal(create_model("mobilenet_v2_035").eval().stages[3][1](x), x)


def test_zero_init_last_spares_blocks_without_a_shortcut() -> None:
    net = create_model("mobilenet_v2_035", zero_init_last=True)
    assert (net.stages[3][0].project.norm.weight == 1).all()


def test_drop_path_rises_linearly_to_the_last_block() -> None:
    net = meta_model("mobilenet_v2_100", drop_path_rate=0.2)
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.2 * i / 16 for i in range(17)])


def test_dropout_before_the_classifier_is_the_authors() -> None:
    assert meta_model("mobilenet_v2_100").head.dropout.p == 0.2
    assert meta_model("mobilenet_v2_100", drop_rate=0.0).head.dropout.p == 0.0


@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_global_pool(global_pool: str) -> None:
    net = create_model("mobilenet_v2_035", num_classes=0, global_pool=global_pool).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net.forward_features(x)
    torch.testing.assert_close(net(x), maps.mean((2, 3)) if global_pool == "avg" else maps.amax((2, 3)))


@pytest.mark.parametrize("width_mult", [0, -0.5, "1.0"])
def test_wrong_width(width_mult: object) -> None:
    with pytest.raises(ValueError, match=r"`width_mult`=.*; expected a number above 0"):
        meta_model("mobilenet_v2_100", width_mult=width_mult)


@pytest.mark.parametrize(
    ("source", "width"),
    [("torchvision", width) for width in WIDTHS] + [("timm", w) for w in WIDTHS if w != "130"],
)
def test_equal_to_public_implementations(source: str, width: str) -> None:
    torch.manual_seed(0)
    if source == "torchvision":
        peer = torchvision.models.mobilenet_v2(width_mult=WIDTHS[width]).eval()
        paths = ["features.0", *(f"features.{i}" for i in (1, 3, 6, 10, 13, 16, 17, 18))]
    else:
        peer = timm.create_model(f"mobilenetv2_{width}").eval()
        paths = ["bn1", *(f"blocks.{i}" for i in range(7)), "bn2"]
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # Wide enough for ReLU6 to cut off.
            nn.init.uniform_(layer.weight, 1.0, 2.0)
            nn.init.normal_(layer.bias, std=0.5)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    net = create_model(f"mobilenet_v2_{width}").eval()
    load_foreign(net, peer.state_dict(), source=source)
    expected: list[torch.Tensor] = []
    for path in paths:
        peer.get_submodule(path).register_forward_hook(lambda _m, _x, y: expected.append(y.clone()))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected.append(peer(x))
        outputs = [*net.forward_stages(x), net(x)]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert theirs.std() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
