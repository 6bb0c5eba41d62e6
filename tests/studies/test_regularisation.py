"""Regularisers: what is switched on, the verdict on made-up errors, and a tiny run on digits."""

import pytest
import torch
from torch import nn

from convatlas.blocks.norm import LocalResponseNorm
from convatlas.studies.learning.regularisation import KINDS, RegularisationKnobs, SmallAlexNet, settings_for
from convatlas.studies.run import run_study

NOISE = (0.2, -0.1, -0.1)


@pytest.mark.parametrize(
    ("kind", "dropout", "augmented", "decay", "alpha"),
    [
        ("none", 0.0, False, 0.0, 0.0),
        ("dropout", 0.3, False, 0.0, 0.0),
        ("augmentation", 0.0, True, 0.0, 0.0),
        ("weight decay", 0.0, False, 0.01, 0.0),
        ("LRN", 0.0, False, 0.0, 0.2),
        ("all", 0.3, True, 0.01, 0.2),
    ],
    ids=KINDS,
)
def test_what_is_switched_on(kind: str, dropout: float, augmented: bool, decay: float, alpha: float) -> None:
    knobs = RegularisationKnobs(drop_rate=0.3, shift=3, mirror=0.4, weight_decay=0.01, lrn_alpha=0.2)
    net, recipe = settings_for(kind, knobs)
    assert net == {"drop_rate": dropout, "lrn_alpha": alpha}
    assert recipe["weight_decay"] == decay
    assert recipe["augment"] == ({"flip": 0.4, "pad_crop": {"pad": 3}} if augmented else {})


def make(lrn_alpha: float) -> SmallAlexNet:
    return SmallAlexNet(in_chans=1, num_classes=10, width=16, drop_rate=0.0, lrn_alpha=lrn_alpha)


def test_network() -> None:
    net = make(0.36)
    # 5x5 from 1 to 16, 5x5 from 16 to 32, 3x3 from 32 to 32, 4 x 4 x 32 to 256, 256 to 10; each with biases.
    weights = 25 * 16 + 25 * 16 * 32 + 9 * 32 * 32 + 512 * 256 + 256 * 10
    biases = 16 + 32 + 32 + 256 + 10
    assert sum(parameter.numel() for parameter in net.parameters()) == weights + biases
    assert sum(isinstance(layer, LocalResponseNorm) for layer in net.modules()) == 2
    assert not any(isinstance(layer, LocalResponseNorm) for layer in make(0.0).modules())
    shapes: list[torch.Size] = []
    pools = [layer for layer in net.features if isinstance(layer, nn.MaxPool2d)]
    for pool in pools:
        pool.register_forward_hook(lambda layer, given, out: shapes.append(out.shape))
    assert net(torch.randn(2, 1, 14, 14)).shape == (2, 10)
    assert shapes == [(2, 16, 7, 7), (2, 32, 4, 4)]


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("drop_rate", 0.0, r"`drop_rate`=0.0; expected a rate between 0 and 1"),
        ("weight_decay", 0.0, r"`weight_decay`=0.0; expected a number above 0"),
        ("shift", 0, r"`shift`=0"),
        ("mirror", 1.5, r"`mirror`=1.5; expected a share of 0 to 1"),
    ],
    ids=["drop_rate", "weight_decay", "shift", "mirror"],
)
def test_a_strength_out_of_range(knob: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_study("regularisation", out="unused", **{knob: value})
