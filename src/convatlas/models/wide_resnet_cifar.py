"""Wide residual networks on CIFAR.

Zagoruyko and Komodakis 2016, "Wide Residual Networks", Table 1. WRN-d-k has d = 6n + 4 convolutions and is k
times as wide as ResNet. The blocks are pre-activation, of two 3x3 convolutions, B(3,3). The networks for
ImageNet are in `wide_resnet`.

| stage | px | WRN-d-k                  |
|-------|----|--------------------------|
| stem  | 32 | 3x3, 16                  |
| 0     | 32 | 3x3-3x3, 16k   xn        |
| 1     | 16 | 3x3-3x3, 32k   xn        |
| 2     | 8  | 3x3-3x3, 64k   xn        |
| norm  | 8  | batch norm, ReLU         |

As in the authors' code, where the width changes the first activation comes before the paths split, and the
shortcut is a 1x1 convolution without normalisation.
"""

from __future__ import annotations

import dataclasses

from torch import nn

from convatlas.blocks.preact import PreActBasicBlock
from convatlas.blocks.residual import make_shortcut
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_depth
from convatlas.models.network import check_count
from convatlas.models.preact_resnet import CIFAR_STAGE_WIDTHS, PreActConfig, PreActResNetCifar


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNetCifarConfig(PreActConfig):
    """The knobs of a wide ResNet; it builds a `PreActResNetCifar`.

    Args:
        blocks_per_stage: n; the network has 6n + 4 convolutions.
        width_mult: k, how much wider than ResNet's the stages are; other than whole numbers give the nearest
            number of channels. The stem keeps its 16.
        depth_mult: how many times as many blocks each stage has; rounded to the nearest number, at least 1.
        block_drop_rate: dropout between the two convolutions of a block; the paper tries 0.3 on CIFAR.
    """

    num_classes: int = 10
    blocks_per_stage: int
    width_mult: float
    depth_mult: float = 1.0
    block_drop_rate: float = 0.0

    def __post_init__(self) -> None:
        """Checks the depth and the width.

        Raises:
            ValueError: the depth is not a positive whole number, or a multiplier is not above 0.
        """
        super().__post_init__()
        check_count("blocks_per_stage", self.blocks_per_stage, least=1)
        check_mult("width_mult", self.width_mult)
        check_mult("depth_mult", self.depth_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return (scale_depth(self.blocks_per_stage, self.depth_mult),) * len(CIFAR_STAGE_WIDTHS)

    @property
    def stage_chans(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(max(1, round(width * self.width_mult)) for width in CIFAR_STAGE_WIDTHS)

    @property
    def stem_chans(self) -> int:
        """Channels of the stem: as many at any width."""
        return CIFAR_STAGE_WIDTHS[0]

    def make_block(self, in_chans: int, out_chans: int, stride: int, index: int) -> nn.Module:
        """B(3,3), with dropout between its convolutions."""
        return PreActBasicBlock(
            in_chans,
            out_chans,
            make_shortcut(self.shortcut, in_chans, out_chans, stride, norm=None),
            stride=stride,
            shared=in_chans != out_chans,
            drop_rate=self.block_drop_rate,
            drop_path_rate=self.drop_path_rate_at(index),
        )

    def build(self) -> PreActResNetCifar:
        """Makes the network."""
        return PreActResNetCifar(self)


VARIANTS = {
    "wide_resnet16_4_cifar": WideResNetCifarConfig(blocks_per_stage=2, width_mult=4),
    "wide_resnet16_8_cifar": WideResNetCifarConfig(blocks_per_stage=2, width_mult=8),
    "wide_resnet28_10_cifar": WideResNetCifarConfig(blocks_per_stage=4, width_mult=10),
    "wide_resnet40_4_cifar": WideResNetCifarConfig(blocks_per_stage=6, width_mult=4),
}
