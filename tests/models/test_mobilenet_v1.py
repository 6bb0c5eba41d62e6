"""MobileNet against Howard et al. 2017."""

import pytest
import timm
import torch
from torch import nn

from convatlas import create_model
from convatlas.weights import load_foreign
from counting import MacCounter, count_macs, meta_model

# Table 1: channels into and out of each separable block, and its depthwise stride.
TABLE_1 = (
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *((512, 512, 1),) * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)


def derive(alpha: float, size: int = 224) -> tuple[int, int]:
    """Parameters and MACs at a width, from Table 1."""
    stem, size = int(32 * alpha), size // 2
    params, macs = 27 * stem + 2 * stem, 27 * stem * size**2
    for in_chans, out_chans, stride in TABLE_1:
        c, d, size = int(in_chans * alpha), int(out_chans * alpha), size // stride
        params += 9 * c + c * d + 2 * c + 2 * d
        macs += (9 * c + c * d) * size**2
    last = int(1024 * alpha)
    return params + last * 1000 + 1000, macs + last * 1000


@pytest.mark.parametrize(
    ("name", "size", "params", "macs"),
    [
        pytest.param("mobilenet_v1_025", 224, 470_072, 41_030_272, id="025"),
        pytest.param("mobilenet_v1_050", 224, 1_331_592, 149_497_088, id="050"),
        pytest.param("mobilenet_v1_050", 160, 1_331_592, 76_524_800, id="050-160"),
        pytest.param("mobilenet_v1_075", 224, 2_585_560, 325_400_448, id="075"),
        pytest.param("mobilenet_v1_100", 224, 4_231_976, 568_740_352, id="100"),
        pytest.param("mobilenet_v1_100", 192, 4_231_976, 418_121_728, id="100-192"),
        pytest.param("mobilenet_v1_100", 160, 4_231_976, 290_675_200, id="100-160"),
        pytest.param("mobilenet_v1_100", 128, 4_231_976, 186_400_768, id="100-128"),
    ],
)
def test_size(name: str, size: int, params: int, macs: int) -> None:
    assert derive(int(name[-3:]) / 100, size) == (params, macs)
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net, size) == macs


@pytest.mark.parametrize(
    ("kind", "params_share", "macs_share"),
    [
        ("pointwise", 74.59, 94.86),
        ("depthwise", 1.06, 3.06),
        # Printed as 1.19, with which the column sums to 99.29: 27 x 32 x 112^2 of 568,740,352 are 1.906.
        ("stem", 0.02, 1.906),
        ("head", 24.33, 0.18),
    ],
)
def test_share_of_each_kind_of_layer_in_table_two(kind: str, params_share: float, macs_share: float) -> None:
    net = meta_model("mobilenet_v1_100")
    with MacCounter(net) as counter:
        net(torch.empty(1, 3, 224, 224, device="meta"))
    layers = [
        (path, layer)
        for path, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and kind in path
    ]
    macs = sum(counter.by_module[path] for path, _ in layers)
    # The paper counts the norms nowhere; the classifier with its bias.
    weights = sum(p.numel() for _, layer in layers for p in layer.parameters())
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    total = sum(p.numel() for layer in convs for p in layer.parameters())
    assert 100 * weights / total == pytest.approx(params_share, abs=0.02)
    assert 100 * macs / 568_740_352 == pytest.approx(macs_share, abs=0.01)


def test_layers_and_maps_of_table_one() -> None:
    net = meta_model("mobilenet_v1_100")
    # "28 layers" counts depthwise and pointwise apart.
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == 28
    maps = net.forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    expected = [(32, 112), (64, 112), (128, 56), (256, 28), (512, 14), (1024, 7)]
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in expected]


def test_each_convolution_has_a_norm_and_an_activation() -> None:
    block = meta_model("mobilenet_v1_100").stages[2][1]
    names = [type(layer).__name__ for part in block for layer in part]
    assert names == ["Conv2d", "BatchNorm2d", "ReLU6"] * 2


@pytest.mark.parametrize(("width_mult", "chans"), [(0.01, 8), (0.3, 9), (1.5, 48), (2, 64)])
def test_any_width(width_mult: float, chans: int) -> None:
    net = create_model("mobilenet_v1_100", width_mult=width_mult, num_classes=3).eval()
    assert net.feature_info.channels()[0] == chans
    assert net(torch.randn(1, 3, 33, 47)).shape == (1, 3)


def test_relu_as_printed() -> None:
    def activations(**options: object) -> set[str]:
        layers = meta_model("mobilenet_v1_025", **options).modules()
        return {type(m).__name__ for m in layers if type(m).__name__.startswith("ReLU")}

    assert activations(relu6=False) == {"ReLU"}
    assert activations() == {"ReLU6"}


def test_weights_are_a_truncated_normal() -> None:
    torch.manual_seed(0)
    net = create_model("mobilenet_v1_100")
    # Cutting the tails at two standard deviations leaves 0.88 of the deviation.
    for path in ("stages.3.0.pointwise.conv", "stages.4.1.depthwise.conv", "head.fc"):
        weight = net.get_submodule(path).weight
        assert weight.std().item() == pytest.approx(0.09 * 0.8796, rel=0.02)
        assert weight.abs().max().item() <= 0.18 + 1e-6
    assert net.head.fc.bias.count_nonzero() == 0


@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_global_pool(global_pool: str) -> None:
    net = create_model("mobilenet_v1_025", num_classes=0, global_pool=global_pool).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net.forward_features(x)
    torch.testing.assert_close(net(x), maps.mean((2, 3)) if global_pool == "avg" else maps.amax((2, 3)))


@pytest.mark.parametrize("width_mult", [0, -1.0, float("inf"), float("nan"), "wide", True])
def test_wrong_width(width_mult: object) -> None:
    with pytest.raises(ValueError, match=r"`width_mult`=.*; expected a number above 0"):
        meta_model("mobilenet_v1_100", width_mult=width_mult)


def test_equal_to_timm() -> None:
    torch.manual_seed(0)
    peer = timm.create_model("mobilenetv1_100").eval()
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # Wide enough for ReLU6 to cut off.
            nn.init.uniform_(layer.weight, 1.5, 3.0)
            nn.init.normal_(layer.bias, std=0.5)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    net = create_model("mobilenet_v1_100").eval()
    load_foreign(net, peer.state_dict(), source="timm")
    expected: list[torch.Tensor] = []
    for path in ["bn1", *(f"blocks.{i}" for i in range(5))]:
        peer.get_submodule(path).register_forward_hook(lambda _m, _x, y: expected.append(y.clone()))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected.append(peer(x))
        outputs = [*net.forward_stages(x), net(x)]
    assert any(y.max() == 6 for y in outputs)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert theirs.std() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
