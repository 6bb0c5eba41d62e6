"""Convolutions split into a spatial and a channel part, and the rounding of channels that goes with them."""

import math

from torch import Tensor, nn

from convatlas.blocks.conv import Act, ConvNormAct, Norm, relu6
from convatlas.blocks.init import truncated_normal_


class DepthwiseSeparable(nn.Sequential):
    """A 3x3 convolution of each channel, then a 1x1 of all; each has its normalisation and activation.

    The children are named `depthwise` and `pointwise`.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        stride: px, of the depthwise convolution.
        norm: makes each normalisation.
        act: makes each activation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride), rounded up.

    Source: Howard et al. 2017, "MobileNets", Figure 3, right.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu6,
    ) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(
            in_chans, in_chans, 3, stride=stride, padding=1, groups=in_chans, norm=norm, act=act
        )
        self.pointwise = ConvNormAct(in_chans, out_chans, 1, norm=norm, act=act)


def round_chans(chans: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `chans`, at least `divisor`, that loses no more than a tenth.

    Source: the authors' code of MobileNetV2 and EfficientNet; no paper prints it.
    """
    rounded = max(divisor, int(chans + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * chans else rounded + divisor


def check_mult(name: str, value: object) -> None:
    """Refuses a multiplier that is not a positive, finite number.

    Raises:
        ValueError: if a value is not as described above.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"`{name}`={value!r}; expected a number above 0, such as 0.75")


def slim_normal_(weight: Tensor) -> None:
    """A truncated normal distribution with deviation 0.09.

    Source: the authors' code of MobileNetV1 and V2 (TF-slim); the papers do not say.
    """
    truncated_normal_(weight, std=0.09)
