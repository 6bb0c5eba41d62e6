"""How a depth or a width multiplier changes a network: the rounding that the model files share.

A multiplier of 1 changes nothing, so that every published network stays as its paper prints it.
"""

import math

from convatlas.blocks.separable import round_chans

CIFAR_DIVISOR = 4
"""Channels of networks for 32 px images are multiples of this: 8 would make steps of half a stage of 16."""


def scale_chans(chans: int, mult: float, divisor: int = 8) -> int:
    """Channels at a width: the nearest multiple of `divisor` that loses no more than a tenth.

    Args:
        chans: at width 1; 0 stays 0.
        mult: width multiplier.
        divisor: of the result.

    Source: the authors' code of MobileNetV2 and EfficientNet (`round_filters`).
    """
    return chans if mult == 1 or chans == 0 else round_chans(chans * mult, divisor)


def scale_depth(depth: int, mult: float) -> int:
    """Blocks at a depth: the nearest whole number, halves upwards, and at least 1; 0 stays 0.

    EfficientNet rounds up instead, as its authors' code does.
    """
    return depth if mult == 1 or depth == 0 else max(1, math.floor(depth * mult + 0.5))
