"""ResNeXt: residual blocks whose 3x3 convolution is grouped.

Xie, Girshick, Dollar, Tu and He 2016, "Aggregated Residual Transformations for Deep Neural Networks", Table 1
(ImageNet) and Section 5.3 (CIFAR). `CxDd` means cardinality C and bottleneck width D: in the first stage, C
groups of D channels each; both later stages and the channels between blocks double as in ResNet.

| stage | px  | ResNeXt-50 (32x4d)                | px | ResNeXt-29 on CIFAR (8x64d)       |
|-------|-----|-----------------------------------|----|-----------------------------------|
| stem  | 112 | 7x7, 64, stride 2                 | 32 | 3x3, 64                           |
| 0     | 56  | 3x3 max pool, stride 2            |    |                                   |
|       |     | 128-128-256, 32 groups     x3     | 32 | 512-512-256, 8 groups      x3     |
| 1     | 28  | 256-256-512, 32 groups     x4     | 16 | 1024-1024-512, 8 groups    x3     |
| 2     | 14  | 512-512-1024, 32 groups    x6     | 8  | 2048-2048-1024, 8 groups   x3     |
| 3     | 7   | 1024-1024-2048, 32 groups  x3     |    |                                   |

The form built is that of Figure 3(c); (a) and (b) are equal to it.

`resnext101_32x8d` is not in the paper; it is torchvision's.

Departs from paper: the CIFAR networks have ReLU after the addition, as in the authors' published code, which
says that this works better than the pre-activation blocks behind the paper's figures.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import he_normal_, init_layers, linear_uniform_
from convatlas.blocks.residual import (
    Bottleneck,
    ShortcutKind,
    check_shortcut,
    make_shortcut,
    zero_last_norms,
)
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity
from convatlas.models.resnet import DEPTHS, ResidualConfig

EXPANSION = 4
CIFAR_STAGE_WIDTHS = (64, 128, 256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNeXtConfig(ResidualConfig):
    """The knobs of ResNeXt on ImageNet; it builds a `ResNet`.

    Args:
        cardinality: C, groups of the 3x3 convolution.
        bottleneck_width: d, channels of a group in the first stage.
    """

    cardinality: int
    bottleneck_width: int

    # The authors' code counts the outputs.
    he_mode: ClassVar[str] = "fan_out"

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
        return EXPANSION

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """The block of Figure 3(c)."""
        return make_resnext_block(
            in_chans,
            width,
            stride,
            cardinality=self.cardinality,
            bottleneck_width=self.bottleneck_width,
            shortcut=self.shortcut,
            drop_path_rate=self.drop_path_rate_at(index),
        )


def group_width(bottleneck_width: int, width: int) -> int:
    """Channels of a group in a stage of `width`: in proportion, to the nearest whole number, at least 1."""
    return max(1, round(bottleneck_width * width / 64))


def make_resnext_block(
    in_chans: int,
    width: int,
    stride: int,
    *,
    cardinality: int,
    bottleneck_width: int,
    shortcut: ShortcutKind,
    drop_path_rate: float,
) -> Bottleneck:
    """The block of Figure 3(c); the 3x3 convolution strides, as in the authors' code.

    Args:
        in_chans: channels of the input.
        width: of the stage: 64 in the first, twice as much in each later one, times the width multiplier.
        stride: px.
        cardinality: C.
        bottleneck_width: d, channels of a group where `width` is 64.
        shortcut: "A", "B" or "C".
        drop_path_rate: stochastic depth of the block.
    """
    out_chans = EXPANSION * width
    return Bottleneck(
        in_chans,
        cardinality * group_width(bottleneck_width, width),
        out_chans,
        make_shortcut(shortcut, in_chans, out_chans, stride),
        stride=stride,
        groups=cardinality,
        drop_path_rate=drop_path_rate,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNeXtCifarConfig(Config):
    """The knobs of ResNeXt on CIFAR.

    Args:
        cardinality: C, groups of the 3x3 convolution.
        bottleneck_width: d, channels of a group in the first stage.
        blocks_per_stage: n; the network has 9n + 2 layers.
        depth_mult: how many times as many blocks each stage has; rounded to the nearest number, at least 1.
        width_mult: how many times as many channels the stem and the stages have; multiples of 8.
        shortcut: "A", "B" or "C".
        zero_init_last: begin with every block as its shortcut.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    num_classes: int = 10
    cardinality: int
    bottleneck_width: int
    blocks_per_stage: int = 3
    depth_mult: float = 1.0
    width_mult: float = 1.0
    shortcut: ShortcutKind = "B"
    zero_init_last: bool = False
    drop_path_rate: float = 0.0
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the counts and the option.

        Raises:
            ValueError: a count is not a positive whole number, or `shortcut` is unknown.
        """
        super().__post_init__()
        check_count("cardinality", self.cardinality, least=1)
        check_count("bottleneck_width", self.bottleneck_width, least=1)
        check_count("blocks_per_stage", self.blocks_per_stage, least=1)
        check_shortcut(self.shortcut)
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return (scale_depth(self.blocks_per_stage, self.depth_mult),) * len(CIFAR_STAGE_WIDTHS)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Width of each stage; a block puts out four times as many channels."""
        return tuple(scale_chans(width, self.width_mult) for width in CIFAR_STAGE_WIDTHS)

    @property
    def stem_chans(self) -> int:
        """Channels of the stem."""
        return scale_chans(64, self.width_mult)

    def build(self) -> ResNeXtCifar:
        """Makes the network."""
        return ResNeXtCifar(self)


class ResNeXtCifar(Network[ResNeXtCifarConfig]):
    """ResNeXt-29: three stages of three blocks each behind one 3x3 convolution.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: resnext29_8x64d_cifar.

    Source: Section 5.3, and the authors' `resnext.lua` for what it leaves open.
    """

    def __init__(self, config: ResNeXtCifarConfig) -> None:
        super().__init__(config)
        chans = [EXPANSION * width for width in config.stage_widths]
        self.min_input_size = 1
        self.feature_info = FeatureInfo(
            [
                Feature("stem", config.stem_chans, 1),
                *(Feature(f"stages.{i}", c, 2**i) for i, c in enumerate(chans)),
            ]
        )
        self.num_features = self.head_hidden_size = chans[-1]
        self.stem = ConvNormAct(config.in_chans, config.stem_chans, 3, padding=1)
        self.stages = nn.ModuleList(self.make_stage(i) for i in range(len(CIFAR_STAGE_WIDTHS)))
        self.head = ClassifierHead(
            self.num_features,
            config.num_classes,
            global_pool=config.global_pool,
            drop_rate=config.drop_rate,
        )

    def make_stage(self, i: int) -> nn.Sequential:
        """The stage at `i`, from 0; all but the first halve H and W."""
        config, width = self.config, self.config.stage_widths[i]
        depth = config.stage_depths[i]
        rates = linear_drop_rates(config.drop_path_rate, depth * len(CIFAR_STAGE_WIDTHS))
        first_chans = self.feature_info[i].channels
        return nn.Sequential(
            *(
                make_resnext_block(
                    first_chans if j == 0 else EXPANSION * width,
                    width,
                    stride=2 if i > 0 and j == 0 else 1,
                    cardinality=config.cardinality,
                    bottleneck_width=config.bottleneck_width,
                    shortcut=config.shortcut,
                    drop_path_rate=rates[i * depth + j],
                )
                for j in range(depth)
            )
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 64, H, W)
        x = tap(self.stages[0](x))  # (B, 256, H, W)
        x = tap(self.stages[1](x))  # (B, 512, H/2, W/2)
        x = tap(self.stages[2](x))  # (B, 1024, H/4, W/4)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule over a layer's outputs, as the authors' code; the classifier as torch's own."""
        init_layers(root, conv=partial(he_normal_, mode="fan_out"), linear=linear_uniform_)
        if self.config.zero_init_last:
            zero_last_norms(root)


VARIANTS = {
    "resnext50_32x4d": ResNeXtConfig(depths=DEPTHS[50], cardinality=32, bottleneck_width=4),
    "resnext101_32x4d": ResNeXtConfig(depths=DEPTHS[101], cardinality=32, bottleneck_width=4),
    "resnext101_32x8d": ResNeXtConfig(depths=DEPTHS[101], cardinality=32, bottleneck_width=8),
    "resnext101_64x4d": ResNeXtConfig(depths=DEPTHS[101], cardinality=64, bottleneck_width=4),
    "resnext29_8x64d_cifar": ResNeXtCifarConfig(cardinality=8, bottleneck_width=64),
    "resnext29_16x64d_cifar": ResNeXtCifarConfig(cardinality=16, bottleneck_width=64),
}
