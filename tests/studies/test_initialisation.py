"""Signals through deep networks, against the theory."""

import math

import pytest
import torch

from convatlas.studies.learning.initialisation import SCALES, DeepNet, probe


@pytest.mark.parametrize("name", SCALES)
def test_gain_of_each_layer_follows_the_scale_of_the_weights(name: str) -> None:
    # He et al. 2015, Equation 9: the variance is multiplied by fan-in / 2 times that of the weights, which is
    # the square of the scale. Wide, so that chance is small; zero padding costs a little at the borders.
    torch.manual_seed(0)
    net = DeepNet(depth=8, width=64, norm=False, scale=SCALES[name], in_chans=1, num_classes=10)
    signal = probe(net, torch.randn(8, 1, 28, 28), torch.arange(8))
    assert signal.gain == pytest.approx(math.log2(SCALES[name]), abs=0.15)
    assert len(signal.forward) == len(signal.backward) == 8


def test_norm_keeps_the_signal_whatever_the_scale() -> None:
    torch.manual_seed(0)
    gains = [
        probe(
            DeepNet(depth=8, width=16, norm=True, scale=scale, in_chans=1, num_classes=10),
            torch.randn(8, 1, 28, 28),
            torch.arange(8),
        ).gain
        for scale in (0.1, 2.0)
    ]
    assert max(abs(gain) for gain in gains) < 0.1
