"""Network in Network against Lin et al. 2013 and its first author's files."""

import pytest
import torch
from torch import nn

from convatlas import create_model
from convatlas.models.nin import MlpConv
from counting import MacCounter, meta_model


@pytest.mark.parametrize(
    ("name", "num_classes", "size", "params", "macs"),
    [
        pytest.param("nin_cifar", 10, 32, 966_986, 222_486_528, id="cifar10"),
        pytest.param("nin_cifar", 100, 32, 984_356, 223_592_448, id="cifar100"),
        pytest.param("nin_imagenet", 1000, 224, 7_595_176, 1_100_188_800, id="imagenet"),
    ],
)
def test_size(name: str, num_classes: int, size: int, params: int, macs: int) -> None:
    net = meta_model(name, num_classes=num_classes)
    assert sum(p.numel() for p in net.parameters()) == params
    with MacCounter() as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    assert counter.macs == macs


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("nin_cifar", 32, [(96, 32), (192, 16), (192, 8)]),
        ("nin_imagenet", 224, [(96, 54), (256, 27), (384, 13), (1024, 6)]),
    ],
)
def test_maps(name: str, size: int, shapes: list[tuple[int, int]]) -> None:
    maps = meta_model(name).forward_stages(torch.empty(1, 3, size, size, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [(c, s, s) for c, s in shapes]


@pytest.mark.parametrize(
    ("name", "pools", "dropouts"),
    [
        ("nin_cifar", [None, nn.MaxPool2d, nn.AvgPool2d], [False, True, True]),
        ("nin_imagenet", [None, nn.MaxPool2d, nn.MaxPool2d, nn.MaxPool2d], [False, False, False, True]),
    ],
)
def test_what_stands_between_layers(name: str, pools: list[type | None], dropouts: list[bool]) -> None:
    stages = [dict(stage.named_children()) for stage in meta_model(name).stages]
    assert [type(stage["pool"]) if "pool" in stage else None for stage in stages] == pools
    assert ["dropout" in stage for stage in stages] == dropouts
    assert all(stage["dropout"].p == 0.5 for stage in stages if "dropout" in stage)


def test_logits_are_means_of_rectified_class_maps() -> None:
    net = create_model("nin_cifar").eval()
    nn.init.normal_(net.head.fc.weight)
    nn.init.normal_(net.head.fc.bias)
    maps = net.forward_features(torch.randn(4, 3, 32, 32))
    weight, bias = net.head.fc.weight[:, :, 0, 0], net.head.fc.bias
    class_maps = torch.einsum("bchw,kc->bkhw", maps, weight) + bias[:, None, None]
    logits = net.forward_head(maps)
    torch.testing.assert_close(logits, class_maps.clamp(min=0).mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    assert (class_maps < 0).any() and (logits >= 0).all()


def test_global_pool_is_an_option() -> None:
    net = create_model("nin_cifar", global_pool="max").eval()
    maps = net.forward_features(torch.randn(2, 3, 32, 32))
    expected = net.head.fc(maps).clamp(min=0).amax(dim=(2, 3))
    torch.testing.assert_close(net.forward_head(maps), expected)
    net.reset_classifier(0, "avg")
    torch.testing.assert_close(net.forward_head(maps), maps.mean(dim=(2, 3)))
    net.reset_classifier(0, "")
    assert net.forward_head(maps).shape == maps.shape


@pytest.mark.parametrize("num_classes", [7, 0])
def test_reset_classifier(num_classes: int) -> None:
    net = create_model("nin_cifar").eval()
    net.reset_classifier(num_classes)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, num_classes or 192)


def test_initialisation() -> None:
    torch.manual_seed(0)
    net = create_model("nin_cifar")
    for layer in (net.stages[0].conv1.conv, net.stages[2].conv2.conv, net.head.fc):
        assert layer.weight.std().item() == pytest.approx(0.05, rel=0.05)
        assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (MlpConv(3, (8, 8)),)}, "`layers`: received 1; expected at least 3 mlpconv layers"),
        ({"layers": (MlpConv(3, (8, 8), pool="sum"),) * 3}, "`pool`='sum'; allowed are"),
        ({"global_pool": "sum"}, "`global_pool`='sum'; allowed are"),
        (
            {"global_pool": ""},
            '`global_pool`="" keeps the feature map and needs `num_classes`=0; received 10',
        ),
    ],
    ids=["layers", "pool", "global_pool", "map-with-classes"],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("nin_cifar", **options)


def test_own_layers_and_their_smallest_size() -> None:
    layers = (MlpConv(5, (8, 8)), MlpConv(3, (8, 8), stride=2, pool="avg"), MlpConv(3, (8, 8), padding=1))
    net = create_model("nin_cifar", layers=layers)
    # 1 px comes of a 3x3 at stride 2 on 3 px, which pooling makes of 6, which a 5x5 makes of 10.
    assert net.min_input_size == 10
    assert net(torch.randn(2, 3, 10, 10)).shape == (2, 10)
    with pytest.raises(
        ValueError, match="nin_cifar: the input is 9x9 px; the smallest size that works is 10x10"
    ):
        net(torch.randn(2, 3, 9, 9))
