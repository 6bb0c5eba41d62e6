"""Regularisers: what is switched on, the verdict on made-up errors, and a tiny run on digits."""

from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.blocks.norm import LocalResponseNorm
from convatlas.studies.context import run_study
from convatlas.studies.regularisation import (
    KINDS,
    Errors,
    RegularisationKnobs,
    Results,
    SmallAlexNet,
    find,
    settings_for,
)
from convatlas.studies.verdict import Verdict, conclude

NOISE = (0.2, -0.1, -0.1)


def results(dropout: Errors, augmentation: Errors, together: Errors) -> Results:
    """Three seeds around errors of 0 and 20 % without regularisers, and around those given."""
    means = dict.fromkeys(KINDS, Errors(0.0, 20.0))
    means |= {"dropout": dropout, "augmentation": augmentation, "all": together}
    return {
        kind: [Errors(mean.train, mean.test + n * (1 + place)) for n in NOISE]
        for place, (kind, mean) in enumerate(means.items())
    }


@pytest.mark.parametrize(
    ("dropout", "augmentation", "together", "verdict"),
    [
        (Errors(5.0, 18.0), Errors(5.0, 17.0), Errors(10.0, 16.0), Verdict.HOLDS),
        (Errors(5.0, 22.0), Errors(5.0, 22.0), Errors(10.0, 16.0), Verdict.HOLDS),  # gaps close all the same
        (Errors(0.0, 25.0), Errors(5.0, 17.0), Errors(10.0, 16.0), Verdict.FAILS),
        (Errors(5.0, 18.0), Errors(5.0, 17.0), Errors(30.0, 35.0), Verdict.FAILS),
        (Errors(5.0, 18.0), Errors(5.0, 17.0), Errors(10.0, 20.0), Verdict.OPEN),
    ],
    ids=["all help", "alone only the gaps", "dropout widens the gap", "together they harm", "within noise"],
)
def test_verdict(dropout: Errors, augmentation: Errors, together: Errors, verdict: Verdict) -> None:
    assert conclude(find(results(dropout, augmentation, together))) is verdict


def test_gap() -> None:
    assert Errors(train=3.0, test=10.0).gap == 7.0


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
    knobs = RegularisationKnobs(drop_rate=0.3, pad=3, flip=0.4, weight_decay=0.01, lrn_alpha=0.2)
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


def test_a_tiny_run(tmp_path: Path) -> None:
    small = {"data": "digits", "images": 40, "test_images": 40, "px": 8, "seeds": 1, "epochs": 2, "width": 4}
    said: list[str] = []
    folder, record = run_study("regularisation", out=tmp_path, log=said.append, **small)
    assert len(said) == 6
    assert len({line.partition(":")[0] for line in said}) == 6  # each a training of its own
    assert sum(finding["decides"] for finding in record["findings"]) == 3
    assert (folder / "regularisation.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("drop_rate", 0.0, r"`drop_rate`=0.0; expected a rate between 0 and 1"),
        ("weight_decay", 0.0, r"`weight_decay`=0.0; expected a number above 0"),
        ("pad", 0, r"`pad`=0"),
        ("flip", 1.5, r"`flip`=1.5; expected a share of 0 to 1"),
    ],
    ids=["drop_rate", "weight_decay", "pad", "flip"],
)
def test_a_strength_out_of_range(knob: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_study("regularisation", out="unused", **{knob: value})
