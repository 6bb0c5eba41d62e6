"""Inception-ResNet against Szegedy et al. 2016 and timm."""

import pytest
import timm
import torch
from torch import nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.blocks.inception import InceptionResidual
from convatlas.weights import load_foreign
from counting import MacCounter
from peers import randomise, relative


def meta_model(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options).eval()


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count_macs(net: nn.Module) -> int:
    with MacCounter() as counter:
        net(torch.empty(1, 3, 299, 299, device="meta"))
    return counter.macs


# Each convolution as (inputs, outputs, kernel's px, output's px).
V1_STEM = [
    (3, 32, 9, 149), (32, 32, 9, 147), (32, 64, 9, 147), (64, 80, 1, 73), (80, 192, 9, 71), (192, 256, 9, 35),
]  # fmt: skip
V1_A = [
    (256, 32, 1, 35),
    (256, 32, 1, 35),
    (32, 32, 9, 35),
    (256, 32, 1, 35),
    (32, 32, 9, 35),
    (32, 32, 9, 35),
]
V1_REDUCTION_A = [(256, 384, 9, 17), (256, 192, 1, 35), (192, 192, 9, 35), (192, 256, 9, 17)]
V1_B = [(896, 128, 1, 17), (896, 128, 1, 17), (128, 128, 7, 17), (128, 128, 7, 17)]
V1_REDUCTION_B = [
    (896, 256, 1, 17), (256, 384, 9, 8), (896, 256, 1, 17), (256, 256, 9, 8),
    (896, 256, 1, 17), (256, 256, 9, 17), (256, 256, 9, 8),
]  # fmt: skip
V1_C = [(1792, 192, 1, 8), (1792, 192, 1, 8), (192, 192, 3, 8), (192, 192, 3, 8)]
# The linear 1x1 convolution that ends a module, with a bias and no batch norm.
V1_LINEAR = [(96, 256, 35, 5), (256, 896, 17, 10), (384, 1792, 8, 5)]


def derive_v1() -> tuple[int, int]:
    """Parameters and MACs from Figures 7 and 10 to 15."""
    convs = V1_STEM + 5 * V1_A + V1_REDUCTION_A + 10 * V1_B + V1_REDUCTION_B + 5 * V1_C
    params = sum(i * o * k + 2 * o for i, o, k, _ in convs)
    macs = sum(i * o * k * px * px for i, o, k, px in convs)
    params += sum(times * (i * o + o) for i, o, _, times in V1_LINEAR) + 1792 * 1000 + 1000
    macs += sum(times * i * o * px * px for i, o, px, times in V1_LINEAR) + 1792 * 1000
    return params, macs


def test_size_of_v1_derived_from_the_figures() -> None:
    net = meta_model("inception_resnet_v1")
    assert derive_v1() == (22_756_328, 6_206_361_696)
    assert (count_params(net), count_macs(net)) == derive_v1()


def test_size_of_v2_counted_elsewhere() -> None:
    net = meta_model("inception_resnet_v2")
    assert count_params(net) == 55_843_464  # timm, Cadene and pytorchcv
    assert count_macs(net) == 13_155_794_016


@pytest.mark.parametrize(
    ("name", "channels", "modules"),
    [
        ("inception_resnet_v1", [64, 192, 256, 896, 1792], 5 + 10 + 5),
        ("inception_resnet_v2", [64, 192, 320, 1088, 1536], 10 + 20 + 10),
    ],
)
def test_maps(name: str, channels: list[int], modules: int) -> None:
    net = meta_model(name)
    maps = net.forward_stages(torch.empty(1, 3, 299, 299, device="meta"))
    assert [m.shape[1] for m in maps] == net.feature_info.channels() == channels
    assert [m.shape[2] for m in maps] == [147, 71, 35, 17, 8]
    assert sum(isinstance(m, InceptionResidual) for m in net.modules()) == modules


def test_last_module_of_v2_is_plain_and_of_v1_is_not() -> None:
    last = [
        [m for m in meta_model(name).modules() if isinstance(m, InceptionResidual)][-1]
        for name in ("inception_resnet_v1", "inception_resnet_v2")
    ]
    assert [m.scale for m in last] == [0.20, 1.0]
    assert [m.act is None for m in last] == [False, True]


def test_facenets_v1_has_a_sixth_plain_module() -> None:
    net = meta_model("inception_resnet_v1", depths=(5, 10, 6), plain_last=True)
    module = sum(i * o * k + 2 * o for i, o, k, _ in V1_C) + 384 * 1792 + 1792
    assert count_params(net) == 22_756_328 + module == 24_357_096


def test_branch_is_linear_and_scaled() -> None:
    net = create_model("inception_resnet_v1", depths=(1, 1, 1), scales=(0.3, 0.1, 0.2), num_classes=2).eval()
    module = net.stages[1][1]
    x = torch.randn(2, 256, 9, 9)
    with torch.no_grad():
        branch = nn.functional.conv2d(module.mix(x), module.project.weight, module.project.bias)
        assert torch.allclose(module(x), torch.relu(x + 0.3 * branch), atol=1e-6)


def test_zero_init_last_begins_with_shortcuts() -> None:
    net = create_model("inception_resnet_v1", depths=(1, 1, 1), num_classes=2, zero_init_last=True).eval()
    x = torch.rand(2, 256, 9, 9)
    with torch.no_grad():
        assert torch.equal(net.stages[1][1](x), x)


def test_drop_path_rises_with_depth() -> None:
    net = meta_model("inception_resnet_v1", depths=(1, 2, 1), drop_path_rate=0.3)
    rates = [m.drop_rate for m in net.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_options_reach_the_head() -> None:
    net = meta_model("inception_resnet_v2", drop_rate=0.5, global_pool="max")
    assert (net.head.dropout.p, net.head.global_pool) == (0.5, "max")
    assert meta_model("inception_resnet_v2").head.dropout.p == 0.2


def test_version_sets_the_widths() -> None:
    net = meta_model("inception_resnet_v1", version=2)
    assert net.feature_info.channels() == [64, 192, 320, 1088, 1536]


def test_initial_weights() -> None:
    net = create_model("inception_resnet_v1", num_classes=10, depths=(1, 1, 1))
    weight = net.stages[2][0][0].conv3x3[0].conv.weight  # 256 to 384 channels, 3x3
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 3}, "`version`=3; allowed are 1 and 2"),
        ({"depths": (5, 10)}, r"`depths`=\(5, 10\); expected a tuple of 3 numbers, for modules A, B and C"),
        ({"depths": (5, 0, 5)}, "`depths`=0; expected a whole number of at least 1"),
        ({"scales": 0.1}, "`scales`=0.1; expected a tuple of 3 numbers, for modules A, B and C"),
    ],
    ids=["version", "two-depths", "no-modules", "one-scale"],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("inception_resnet_v1", **options)


@torch.no_grad()
def test_equal_to_timm_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(timm.create_model("inception_resnet_v2"))
    net = create_model("inception_resnet_v2").eval()
    load_foreign(net, peer.state_dict(), source="timm")
    x = torch.randn(2, 3, 96, 96)
    theirs: list[torch.Tensor] = []
    for stage in peer.feature_info:  # Hooks: `forward_intermediates` is not in every timm that is supported.
        peer.get_submodule(stage["module"]).register_forward_hook(lambda _, __, out: theirs.append(out))
    logits = peer(x)
    assert logits.abs().max() > 0.1
    assert relative(net(x), logits) < 1e-4
    assert max(relative(a, b) for a, b in zip(net.forward_stages(x), theirs, strict=True)) < 1e-4
