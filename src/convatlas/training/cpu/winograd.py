"""3x3 convolutions of a training step with a quarter of the products, on CPUs: Winograd's minimal filtering.

Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", Section 4, F(4x4, 3x3): 36
products for 16 outputs, which take 144 one by one. The gradient of the input is a convolution of the same
kind, and that of the weight is the same trilinear form, taken for another of its three parts.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from convatlas.training.cpu.library import LAST
from convatlas.training.cpu.replacement import Call, ReplacedConv2d, Replacement

SIDE = 4  # of a tile, in outputs
# Below, the tiles that jut out over the edge, or the weights, take longer than the products that are saved.
LEAST_SAVING, LEAST_TILES = 1.5, 32


class WinogradConv2d(ReplacedConv2d):
    """A convolution that takes a quarter of the products."""

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` does, and does faster."""
        if not super().fits(x):
            return False
        height, width = self.outputs(x)
        tiles = math.ceil(height / SIDE) * math.ceil(width / SIDE)
        return (
            len(x) * tiles >= LEAST_TILES
            and 9 * height * width >= LEAST_SAVING * (SIDE + 2) ** 2 * tiles
            and self.weight.is_contiguous(memory_format=LAST)
        )

    def call(self, x: Tensor) -> Call:
        """What is to be computed of x, which fits."""
        images, chans, *sides = x.shape
        sizes = (images, *sides, chans, self.out_channels, int(self.padding[0]))
        return Call("conv", sizes, (images, self.out_channels, *self.outputs(x)))


def _suits(layer: nn.Conv2d, lanes: int) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding in ((0, 0), (1, 1), (2, 2))
        and layer.in_channels % lanes == 0
        and layer.out_channels % lanes == 0
    )


WINOGRAD = Replacement(
    "winograd",
    "3x3 convolutions",
    "with a quarter of the products",
    WinogradConv2d,
    _suits,
    lambda chans: nn.Conv2d(chans, chans, 3, padding=1, bias=False),
    ((64, 16, 28), (8, 64, 28), (16, 128, 14)),
)
