"""Squeeze-and-excitation networks: ResNet and ResNeXt with a gate at the end of each branch, and SENet-154.

Hu, Shen, Albanie, Sun and Wu 2017, "Squeeze-and-Excitation Networks", Table 1 (SE-ResNet-50 and
SE-ResNeXt-50) and the section on the ILSVRC 2017 entry (SENet-154). Each builds a `ResNet` of other blocks.

Where the paper is silent, these follow the authors' Caffe models: the stride of SE-ResNet is on the first 1x1
(SE-ResNeXt: on the 3x3), the first pooling has no padding and rounds up, and the gate's layers have biases.

SENet-154 is an SE-ResNeXt-152 (64x4d) with three 3x3 convolutions for a stem, half the channels in the first
1x1 of each block, 3x3 projections where a stage strides, and dropout of 0.2 before the classifier.

`se_resnet18` and `se_resnet34` are not in the paper's tables; the same gate ends their branches.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import ClassVar

from torch import nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.residual import (
    BasicBlock,
    Bottleneck,
    StrideOn,
    check_stride_on,
    make_shortcut,
)
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.multipliers import scale_chans
from convatlas.models.network import check_count
from convatlas.models.resnet import DEPTHS, ResidualConfig
from convatlas.models.resnext import group_width


@dataclasses.dataclass(frozen=True, kw_only=True)
class SENetConfig(ResidualConfig):
    """The knobs that every network of the paper has.

    Args:
        reduction: r; the gate's hidden layer has C / r channels.
        squeeze_bias: whether the gate's two layers have biases: the Caffe models have, the ablations not.
    """

    reduction: int = 16
    squeeze_bias: bool = True

    # The pooling without padding needs two px, which the stem makes from three.
    min_input_size: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Checks the reduction.

        Raises:
            ValueError: `reduction` is not a positive whole number, or leaves a gate without channels.
        """
        super().__post_init__()
        check_count("reduction", self.reduction, least=1)
        fewest = self.stage_widths[0] * self.expansion
        if self.reduction > fewest:
            raise ValueError(
                f"`reduction`={self.reduction!r}; expected at most {fewest}, the first stage's channels"
            )

    def make_pool(self) -> nn.Module:
        """The pooling that opens the first stage, as Caffe rounds it."""
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def make_squeeze(self, chans: int) -> nn.Module:
        """The gate at the end of a branch."""
        return SqueezeExcite(chans, chans // self.reduction, bias=self.squeeze_bias)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SEResNetConfig(SENetConfig):
    """The knobs of SE-ResNet.

    Args:
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions rather than of two 3x3.
        stride_on: which convolution of a bottleneck strides, "1x1" or "3x3".
    """

    bottleneck: bool = True
    stride_on: StrideOn = "1x1"

    def __post_init__(self) -> None:
        """Checks the place of the stride.

        Raises:
            ValueError: it is unknown, or on a 1x1 convolution that blocks of two 3x3 have not.
        """
        super().__post_init__()
        check_stride_on(self.stride_on, bottleneck=self.bottleneck)

    @property
    def expansion(self) -> int:
        """Channels that a block puts out, for each of its stage's width."""
        return 4 if self.bottleneck else 1

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """A block of ResNet, its branch gated."""
        out_chans = width * self.expansion
        shortcut = make_shortcut(self.shortcut, in_chans, out_chans, stride)
        drop_path_rate = self.drop_path_rate_at(index)
        if not self.bottleneck:
            return BasicBlock(
                in_chans,
                out_chans,
                shortcut,
                stride=stride,
                squeeze=self.make_squeeze,
                drop_path_rate=drop_path_rate,
            )
        return Bottleneck(
            in_chans,
            width,
            out_chans,
            shortcut,
            stride=stride,
            stride_on=self.stride_on,
            squeeze=self.make_squeeze,
            drop_path_rate=drop_path_rate,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SEResNeXtConfig(SENetConfig):
    """The knobs of SE-ResNeXt.

    Args:
        cardinality: C, groups of the 3x3 convolution.
        bottleneck_width: d, channels of a group in the first stage.
    """

    cardinality: int = 32
    bottleneck_width: int = 4

    def __post_init__(self) -> None:
        """Checks the groups.

        Raises:
            ValueError: a count is not a positive whole number.
        """
        super().__post_init__()
        check_count("cardinality", self.cardinality, least=1)
        check_count("bottleneck_width", self.bottleneck_width, least=1)

    @property
    def expansion(self) -> int:
        """Channels that a block puts out, for each of its stage's width."""
        return 4

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """A block of ResNeXt, its branch gated."""
        out_chans = width * self.expansion
        return Bottleneck(
            in_chans,
            self.cardinality * group_width(self.bottleneck_width, width),
            out_chans,
            make_shortcut(self.shortcut, in_chans, out_chans, stride),
            stride=stride,
            groups=self.cardinality,
            squeeze=self.make_squeeze,
            drop_path_rate=self.drop_path_rate_at(index),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SENet154Config(SENetConfig):
    """The knobs of SENet-154: those of `SENetConfig`, with dropout before the classifier."""

    drop_rate: float = 0.2

    base_stem_chans: ClassVar[int] = 128
    cardinality: ClassVar[int] = 64

    @property
    def expansion(self) -> int:
        """Channels that a block puts out, for each of its stage's width."""
        return 4

    def make_stem(self) -> nn.Module:
        """Three 3x3 convolutions in the place of one 7x7."""
        narrow = scale_chans(64, self.width_mult)
        return nn.Sequential(
            OrderedDict(
                conv1=ConvNormAct(self.in_chans, narrow, 3, stride=2, padding=1),
                conv2=ConvNormAct(narrow, narrow, 3, padding=1),
                conv3=ConvNormAct(narrow, self.stem_chans, 3, padding=1),
            )
        )

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """A bottleneck of 64 groups, its first 1x1 half as wide as its 3x3, its branch gated."""
        out_chans = width * self.expansion
        kernel_size = 3 if stride > 1 else 1
        per_group = group_width(4, width)
        return Bottleneck(
            in_chans,
            self.cardinality * per_group,
            out_chans,
            make_shortcut(self.shortcut, in_chans, out_chans, stride, kernel_size=kernel_size),
            stride=stride,
            groups=self.cardinality,
            reduced_chans=self.cardinality * per_group // 2,
            squeeze=self.make_squeeze,
            drop_path_rate=self.drop_path_rate_at(index),
        )


VARIANTS = {
    "se_resnet18": SEResNetConfig(depths=DEPTHS[18], bottleneck=False, stride_on="3x3"),
    "se_resnet34": SEResNetConfig(depths=DEPTHS[34], bottleneck=False, stride_on="3x3"),
    "se_resnet50": SEResNetConfig(depths=DEPTHS[50]),
    "se_resnet101": SEResNetConfig(depths=DEPTHS[101]),
    "se_resnet152": SEResNetConfig(depths=DEPTHS[152]),
    "se_resnext50_32x4d": SEResNeXtConfig(depths=DEPTHS[50]),
    "se_resnext101_32x4d": SEResNeXtConfig(depths=DEPTHS[101]),
    "senet154": SENet154Config(depths=DEPTHS[152]),
}
