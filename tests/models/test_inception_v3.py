"""Inception v3 against Szegedy et al. 2015, torchvision and timm."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.weights import load_foreign
from counting import MacCounter
from peers import randomise, relative


def meta_model(**options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model("inception_v3", **options).eval()


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_size_counted_elsewhere() -> None:
    net = meta_model()
    assert count_params(net) == 27_161_264  # torchvision
    assert count_params(net.aux_heads) == 3_326_696
    assert count_params(meta_model(aux_heads=False)) == 23_834_568  # timm
    with MacCounter() as counter:
        net(torch.empty(1, 3, 299, 299, device="meta"))
    assert counter.macs == 5_713_216_096


def test_size_without_scale_is_that_of_keras() -> None:
    net = meta_model(aux_heads=False)
    scales = sum(m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert scales == 17_216
    assert count_params(net) - scales == 23_817_352


def test_maps_of_table_1() -> None:
    maps = meta_model().forward_stages(torch.empty(1, 3, 299, 299, device="meta"))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(64, 147, 147), (192, 71, 71), (288, 35, 35), (768, 17, 17), (2048, 8, 8)]


def test_side_classifier_answers_at_any_size() -> None:
    net = create_model("inception_v3", num_classes=5).eval()
    x = torch.randn(2, 3, 80, 80)
    with torch.no_grad():
        out = net.forward_aux(x)
        assert torch.equal(out.main, net(x))
    assert [a.shape for a in out.aux] == [(2, 5)]
    net.reset_classifier(3)
    assert [a.shape for a in net.forward_aux(x).aux] == [(2, 3)]
    net.reset_classifier(0)
    assert [a.shape for a in net.forward_aux(x).aux] == [(2, 768)]


def test_no_side_classifier() -> None:
    net = create_model("inception_v3", num_classes=5, aux_heads=False).eval()
    assert net.forward_aux(torch.randn(1, 3, 75, 75)).aux == ()


def test_initial_weights() -> None:
    net = create_model("inception_v3")
    weight = net.stages[3][1].double3x3[1].conv.weight  # 448 to 384 channels, 3x3
    assert weight.std().item() == pytest.approx((2 / (448 * 9)) ** 0.5, rel=0.02)
    head = net.aux_heads[0]
    assert head.body[2][1].conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert head.fc.weight.std().item() == pytest.approx(0.001, rel=0.02)
    net.reset_classifier(500)
    assert head.fc.weight.abs().max().item() == 0.0  # A replaced head begins at a loss of ln K.


def test_options_reach_the_head() -> None:
    net = meta_model(drop_rate=0.5, global_pool="max")
    assert (net.head.dropout.p, net.head.global_pool) == (0.5, "max")
    assert meta_model().head.dropout.p == 0.2


def test_smallest_size() -> None:
    with pytest.raises(ValueError, match="the input is 74x74 px; the smallest size that works is 75x75"):
        meta_model()(torch.empty(1, 3, 74, 74, device="meta"))


@torch.no_grad()
def test_equal_to_torchvision_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(torchvision.models.inception_v3(weights=None, init_weights=False))
    net = create_model("inception_v3").eval()
    load_foreign(net, peer, source="torchvision")
    seen: list[torch.Tensor] = []
    for name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"):
        peer.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out))
    x = torch.randn(1, 3, 299, 299)  # The size at which torchvision's side classifier exists.
    logits = peer(x)
    assert logits.abs().max() > 0.1
    out = net.forward_aux(x)
    assert relative(out.main, logits) < 1e-4
    assert max(relative(a, b) for a, b in zip(net.forward_stages(x), seen, strict=True)) < 1e-4
    assert relative(out.aux[0], peer.AuxLogits(seen[3])) < 1e-4


@torch.no_grad()
def test_equal_to_timm_with_its_weights() -> None:
    torch.manual_seed(0)
    peer = randomise(timm.create_model("inception_v3"))
    net = create_model("inception_v3", aux_heads=False).eval()
    load_foreign(net, peer.state_dict(), source="timm")
    x = torch.randn(2, 3, 96, 96)
    theirs: list[torch.Tensor] = []
    for stage in peer.feature_info:  # Hooks: `forward_intermediates` is not in every timm that is supported.
        peer.get_submodule(stage["module"]).register_forward_hook(lambda _, __, out: theirs.append(out))
    logits = peer(x)
    assert logits.abs().max() > 0.1
    assert relative(net(x), logits) < 1e-4
    assert max(relative(a, b) for a, b in zip(net.forward_stages(x), theirs, strict=True)) < 1e-4
