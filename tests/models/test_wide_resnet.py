"""ImageNet's wide ResNets against Zagoruyko and Komodakis 2016, Table 8."""

import math

import pytest
import timm
import torch
import torchvision

from convatlas import create_model
from convatlas.weights import load_foreign
from counting import count_macs, meta_model
from peers import assert_same_outputs, randomise_norms


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # torchvision's and timm's counts; the paper prints 68.9M for the first.
        ("wide_resnet50_2", 68_883_240, 11_398_021_120),
        ("wide_resnet101_2", 126_886_696, 22_753_050_624),
    ],
)
def test_size(name: str, params: int, macs: int) -> None:
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net) == macs


def test_only_the_inside_of_a_block_is_wide() -> None:
    wide, thin = meta_model("wide_resnet50_2"), meta_model("resnet50")
    assert wide.feature_info == thin.feature_info
    for ours, theirs in zip(wide.stages, thin.stages, strict=True):
        block, other = ours[1], theirs[1]
        assert block.conv2.conv.in_channels == 2 * other.conv2.conv.in_channels
        assert block.conv2.conv.out_channels == 2 * other.conv2.conv.out_channels
        assert block.conv3.conv.out_channels == other.conv3.conv.out_channels


@pytest.mark.parametrize("width_mult", [1, 1.5])
def test_width_mult(width_mult: float) -> None:
    net = meta_model("wide_resnet50_2", width_mult=width_mult)
    assert net.stages[0][0].conv2.conv.out_channels == 64 * width_mult
    if width_mult == 1:
        assert sum(p.numel() for p in net.parameters()) == 25_557_032  # ResNet-50


@pytest.mark.parametrize(("kind", "count"), [("A", 0), ("B", 4), ("C", 16)])
def test_shortcut_option(kind: str, count: int) -> None:
    net = meta_model("wide_resnet50_2", shortcut=kind)
    assert sum("shortcut.conv" in path for path in net.state_dict()) == count


def test_zero_init_last_makes_a_block_its_shortcut() -> None:
    block = create_model("wide_resnet50_2", zero_init_last=True).eval().stages[0][1]
    x = torch.randn(1, 256, 4, 4)
    assert torch.equal(block(x), torch.relu(x))


def test_weights_follow_he_over_outputs() -> None:
    torch.manual_seed(0)
    net = create_model("wide_resnet50_2")
    assert net.stem.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 49)), rel=0.03)
    assert net.stages[1][0].conv1.conv.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.03)


def test_drop_path_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = create_model("wide_resnet50_2", drop_path_rate=0.5, width_mult=0.25, num_classes=5)
    x = torch.randn(4, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("width_mult", [0.001, float("nan"), "2"], ids=repr)
def test_wrong_width(width_mult: object) -> None:
    with pytest.raises(ValueError, match=r"`width_mult`=.*; expected a number, at least 1/64"):
        meta_model("wide_resnet50_2", width_mult=width_mult)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize("name", ["wide_resnet50_2", "wide_resnet101_2"])
def test_equal_to_public_implementations(source: str, name: str) -> None:
    torch.manual_seed(0)
    make = torchvision.models.get_model if source == "torchvision" else timm.create_model
    peer = randomise_norms(make(name), 0.3, 0.9)
    net = create_model(name).eval()
    load_foreign(net, peer.state_dict(), source=source)
    x = torch.randn(1, 3, 96, 96)
    act = "relu" if source == "torchvision" else "act1"
    assert_same_outputs(net, peer, x, [act, "layer1", "layer2", "layer3", "layer4"])
