"""ZFNet against Zeiler and Fergus 2013, Figure 3 and Table 2."""

import pytest
import torch

from convatlas import create_model
from convatlas.models.registry import UnknownNameError
from counting import MacCounter, meta_model

BIG_PARAMS = (
    (7 * 7 * 3 + 1) * 96
    + (5 * 5 * 96 + 1) * 256
    + (9 * 256 + 1) * 512
    + (9 * 512 + 1) * 1024
    + (9 * 1024 + 1) * 512
    + (6 * 6 * 512 + 1) * 4096
    + 4097 * 4096
    + 4097 * 1000
)
BIG_MACS = (
    7 * 7 * 3 * 96 * 110**2
    + 5 * 5 * 96 * 256 * 26**2
    + 9 * (256 * 512 + 512 * 1024 + 1024 * 512) * 13**2
    + 6 * 6 * 512 * 4096
    + 4096 * 4096
    + 4096 * 1000
)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        pytest.param("zfnet", 62_357_608, 1_168_032_896, id="zfnet"),
        pytest.param("zfnet_big", BIG_PARAMS, BIG_MACS, id="zfnet_big"),
    ],
)
def test_size(name: str, params: int, macs: int) -> None:
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == params
    with MacCounter() as counter:
        net(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.macs == macs


@pytest.mark.parametrize(("name", "last"), [("zfnet", 256), ("zfnet_big", 512)])
def test_maps_of_figure_three(name: str, last: int) -> None:
    maps = meta_model(name).forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (96, 110, 110), (256, 26, 26), (last, 13, 13), (last, 6, 6)
    ]  # fmt: skip


def test_maps_are_pooled_before_they_are_normalised() -> None:
    net = meta_model("zfnet")
    seen: list[tuple[int, ...]] = []
    for stage in net.stages:
        stage.norm.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[1:])))
    net(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == [(96, 55, 55), (256, 13, 13)]  # caption: "96 different 55 by 55 element feature maps"


def test_initialisation_and_dropout() -> None:
    torch.manual_seed(0)
    net = create_model("zfnet", num_classes=10)
    for path in ("stem.conv", "stages.1.conv4.conv", "head.hidden.fc2", "head.fc"):
        layer = net.get_submodule(path)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.03)
        assert layer.bias.count_nonzero() == 0
    assert net.head.hidden.dropout2.p == net.head.dropout.p == 0.5


def test_option_that_is_none() -> None:
    with pytest.raises(UnknownNameError, match="zfnet has no option `towers`"):
        create_model("zfnet", towers=2)
