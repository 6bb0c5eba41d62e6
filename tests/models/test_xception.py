"""Xception against Chollet 2016 and timm."""

import math

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
        return create_model("xception", **options).eval()


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_size_is_that_of_table_3() -> None:
    net = meta_model()
    assert count_params(net) == 22_855_952
    with MacCounter() as counter:
        net(torch.empty(1, 3, 299, 299, device="meta"))
    assert counter.macs == 8_357_403_496


def test_maps_of_figure_5() -> None:
    maps = meta_model().forward_stages(torch.empty(1, 3, 299, 299, device="meta"))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(64, 147, 147), (128, 74, 74), (256, 37, 37), (728, 19, 19), (2048, 10, 10)]


def test_36_convolutions_build_the_features() -> None:
    net = meta_model()
    separable = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    dense = [m for m in net.stem.modules() if isinstance(m, nn.Conv2d)]
    assert len(separable) + len(dense) == 36
    projections = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(projections) == 34 + 4  # 34 pointwise, and the shortcuts of the four blocks that change shape


def test_nothing_stands_between_depthwise_and_pointwise() -> None:
    conv = create_model("xception", middle_blocks=0).get_submodule("stages.0.convs.0")
    assert [name for name, _ in conv.named_children()] == ["depthwise", "pointwise", "norm"]


def test_first_block_leaves_out_its_relu_and_no_block_changes_its_input() -> None:
    net = create_model("xception", middle_blocks=1).eval()
    for path in ("stages.0", "stages.1", "stages.2.0", "stages.2.1"):
        block = net.get_submodule(path)
        x = torch.randn(1, {"stages.0": 64, "stages.1": 128, "stages.2.0": 256}.get(path, 728), 8, 8)
        before = x.clone()
        out = block(x)
        assert torch.equal(x, before)
        branch = out - block.shortcut(x)
        clipped = block.pool(block.convs(x.relu()))
        assert torch.allclose(branch, clipped, atol=1e-4) is (path != "stages.0")


@pytest.mark.parametrize("blocks", [0, 2])
def test_middle_blocks(blocks: int) -> None:
    # A block: three times 9 * 728 + 728^2 + 2 * 728.
    each = 3 * (9 * 728 + 728**2 + 2 * 728)
    assert count_params(meta_model(middle_blocks=blocks)) == 22_855_952 - (8 - blocks) * each


def test_epsilon_option() -> None:
    net = meta_model(bn_eps=1e-3)
    assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_wrong_middle_blocks() -> None:
    with pytest.raises(ValueError, match=r"`middle_blocks`=-1; expected a whole number of at least 0"):
        create_model("xception", middle_blocks=-1)


def test_drop_path_is_refused() -> None:
    with pytest.raises(ValueError, match="xception has no option `drop_path_rate`"):
        create_model("xception", drop_path_rate=0.1)


def test_initialisation_is_xaviers() -> None:
    torch.manual_seed(0)
    net = create_model("xception", middle_blocks=1)
    weight = net.get_submodule("stages.2.1.convs.0.pointwise").weight
    assert weight.abs().max() <= math.sqrt(6 / (728 + 728))
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (728 + 728)), rel=0.01)


@torch.no_grad()
def test_equal_to_timm_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(timm.create_model("legacy_xception"))
    net = create_model("xception").eval()
    load_foreign(net, peer.state_dict(), source="timm")
    seen: list[torch.Tensor] = []
    for name in ("act2", "block1", "block2", "block11", "act4"):
        # Copies: the blocks add in place to what they hand on.
        peer.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    x = torch.randn(2, 3, 107, 107)
    logits = peer(x)
    assert logits.abs().max() > 0.1
    assert relative(net(x), logits) < 1e-4
    assert max(relative(a, b) for a, b in zip(net.forward_stages(x), seen, strict=True)) < 1e-4
