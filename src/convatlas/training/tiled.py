"""Convolutions of a training step in bfloat16 by the processor's matrix unit, where it has one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convatlas.native import CompilerError
from convatlas.training.kernels import HALF, library
from convatlas.training.replacement import Replaced3x3, Replacement, is_3x3

TILE = 16  # channels
MOST_CHANS = 64  # with more, torch's gradients of weights are faster


class TiledConv2d(Replaced3x3):
    """A convolution by the matrix unit."""

    functions = "tiled"

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` does."""
        return super().fits(x) and torch.is_autocast_enabled("cpu") and min(self.outputs(x)) >= 1


def _suits(layer: nn.Conv2d, lanes: int) -> bool:
    chans = (layer.in_channels, layer.out_channels)
    return is_3x3(layer) and all(n % TILE == 0 and n <= MOST_CHANS for n in chans)


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
    lambda chans: nn.Conv2d(chans, chans, 3, padding=1, bias=False),
    ((64, 16, 28), (64, 32, 14), (8, 64, 28)),
    _serves,
)
