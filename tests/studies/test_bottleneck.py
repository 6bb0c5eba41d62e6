"""Inception modules with and without bottlenecks: the printed arithmetic, the verdict, and a tiny run."""

import pytest
import torch

from convatlas.studies.modules.bottleneck import EXAMPLES, BottleneckKnobs, InceptionNet, count, macs_of
from convatlas.studies.verdict import Verdict


def test_the_course_module() -> None:
    # 28*28*(128*256 + 192*9*256 + 96*25*256), and the six terms of the slide with bottlenecks. The slide's
    # sum, 358M, has the 3x3 term twice.
    naive, reduced = macs_of(EXAMPLES[0])
    assert naive == 25_690_112 + 346_816_512 + 481_689_600 == 854_196_224
    assert reduced == 3 * 12_845_056 + 25_690_112 + 86_704_128 + 120_422_400 == 271_351_808
    assert reduced + 86_704_128 == pytest.approx(358e6, rel=1e-3)


def test_googlenet_3a() -> None:
    # Table 1 prints 128M operations; 192 channels go through unprojected without bottlenecks.
    naive, reduced = macs_of(EXAMPLES[1])
    assert reduced == pytest.approx(128e6, rel=1e-3)
    assert naive == 303_464_448


def test_all_facts_hold() -> None:
    facts = count()
    assert {fact.verdict for fact in facts} == {Verdict.HOLDS}
    assert [fact.value for fact in facts[-2:]] == [672, 480]


@pytest.mark.parametrize("bottlenecks", [False, True], ids=["naive", "bottlenecks"])
def test_channels_of_small_networks(bottlenecks: bool) -> None:
    # 3a and 3b of a quarter of the channels, of 48: naive 48 + 56 = 104 and 104 + 104 = 208; else 64 and 120.
    net = InceptionNet(bottlenecks=bottlenecks, modules=("3a", "3b"), share=4, in_chans=1, num_classes=7)
    x = torch.zeros(2, 1, 8, 8)
    assert net.stages(net.stem(x)).shape == (2, 120 if bottlenecks else 208, 8, 8)
    assert net(x).shape == (2, 7)


def test_maps_halve_at_later_modules_called_a() -> None:
    net = InceptionNet(bottlenecks=True, modules=("3a", "4a"), share=8, in_chans=1, num_classes=7)
    assert net.stages(net.stem(torch.zeros(1, 1, 7, 7))).shape[2:] == (4, 4)


def test_unknown_module() -> None:
    with pytest.raises(ValueError, match=r"no module '3c'; they are 3a, 3b, 4a"):
        BottleneckKnobs(modules=("3a", "3c"))
