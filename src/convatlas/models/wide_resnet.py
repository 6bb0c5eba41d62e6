"""Wide residual networks on ImageNet.

Zagoruyko and Komodakis 2016, "Wide Residual Networks", Table 8. The CIFAR networks, which are
pre-activation, are in `wide_resnet_cifar`.

`wide_resnet50_2` is WRN-50-2-bottleneck: ResNet-50 whose bottlenecks are twice as wide inside (128 to 1024
channels rather than 64 to 512), with the same channels between blocks.

`wide_resnet101_2` is not in the paper; it is torchvision's, by the same rule.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from torch import nn

from convatlas.blocks.residual import Bottleneck, make_shortcut
from convatlas.models.resnet import DEPTHS, STAGE_WIDTHS, ResidualConfig


def check_width_mult(width_mult: object) -> None:
    """Refuses what is not a number, or leaves a block without channels.

    Raises:
        ValueError: if a value is not as described above.
    """
    if (
        isinstance(width_mult, bool)
        or not isinstance(width_mult, int | float)
        or not 1 / 64 <= width_mult < math.inf
    ):
        raise ValueError(f"`width_mult`={width_mult!r}; expected a number, at least 1/64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNetConfig(ResidualConfig):
    """The knobs of a wide ResNet of bottlenecks; it builds a `ResNet`.

    Args:
        width_mult: k, how much wider than ResNet's the two inner layers of a block are; the channels between
            blocks stay.
    """

    width_mult: float = 2.0

    # The authors' training code, fb.resnet.torch, counts the outputs.
    he_mode: ClassVar[str] = "fan_out"

    def __post_init__(self) -> None:
        """Checks the width.

        Raises:
            ValueError: `width_mult` leaves a block without channels.
        """
        check_width_mult(self.width_mult)
        super().__post_init__()

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Width of each stage, which `width_mult` leaves as it is."""
        return STAGE_WIDTHS

    @property
    def stem_chans(self) -> int:
        """Channels of the stem, which `width_mult` leaves as they are."""
        return self.base_stem_chans

    @property
    def expansion(self) -> int:
        """Channels that a block puts out, for each of its stage's width."""
        return 4

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """A bottleneck, `width_mult` times as wide inside."""
        out_chans = width * self.expansion
        return Bottleneck(
            in_chans,
            int(width * self.width_mult),
            out_chans,
            make_shortcut(self.shortcut, in_chans, out_chans, stride),
            stride=stride,
            drop_path_rate=self.drop_path_rate_at(index),
        )


VARIANTS = {
    "wide_resnet50_2": WideResNetConfig(depths=DEPTHS[50]),
    "wide_resnet101_2": WideResNetConfig(depths=DEPTHS[101]),
}
