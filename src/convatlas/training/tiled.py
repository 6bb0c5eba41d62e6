"""Convolutions of a training step in bfloat16 by the processor's matrix unit, where it has one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convatlas.native import CompilerError
from convatlas.training.kernels import HALF, LAST, library
from convatlas.training.replacement import Call, ReplacedConv2d, Replacement

TILE = 16  # channels
KERNEL = 3
MOST_CHANS = 64  # with more, torch's gradients of weights are faster


class TiledConv2d(ReplacedConv2d):
    """A convolution by the matrix unit."""

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` does."""
        return (
            super().fits(x)
            and torch.is_autocast_enabled("cpu")
            and min(self.outputs(x)) >= 1
            and self.weight.is_contiguous(memory_format=LAST)
        )

    def call(self, x: Tensor) -> Call:
        """What is to be computed of x, which fits."""
        images, chans, *sides = x.shape
        sizes = (images, *sides, chans, self.out_channels, int(self.padding[0]))
        return Call("tiled", sizes, (images, self.out_channels, *self.outputs(x)))


def _suits(layer: nn.Conv2d, lanes: int) -> bool:
    return (
        layer.kernel_size == (KERNEL, KERNEL)
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding in tuple((pad, pad) for pad in range(KERNEL))
        and all(n % TILE == 0 and n <= MOST_CHANS for n in (layer.in_channels, layer.out_channels))
    )


def _serves(dtype: torch.dtype | None) -> bool:
    try:
        return dtype == HALF and bool(library().train_has_tiles())
    except CompilerError:
        return False  # which is told of other convolutions


TILED = Replacement(
    "tiled",
    f"3x3 convolutions of at most {MOST_CHANS} channels",
    "by the processor's matrix unit",
    TiledConv2d,
    _suits,
    lambda chans: nn.Conv2d(chans, chans, KERNEL, padding=1, bias=False),
    ((64, 16, 28), (64, 32, 14), (8, 64, 28)),
    _serves,
)
