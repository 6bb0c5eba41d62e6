"""ResNet on ImageNet, and the plain networks that it is compared with.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", Table 1.

| stage | px  | 18            | 34            | 50                        | 101      | 152      |
|-------|-----|---------------|---------------|---------------------------|----------|----------|
| stem  | 112 | 7x7, 64, stride 2                                                                |
| 0     | 56  | 3x3 max pool, stride 2                                                           |
|       |     | 3x3, 64   x2  | 3x3, 64   x3  | 1x1-3x3-1x1, 64-256   x3  | same x3  | same x3  |
| 1     | 28  | 3x3, 128  x2  | 3x3, 128  x4  | 1x1-3x3-1x1, 128-512  x4  | same x4  | same x8  |
| 2     | 14  | 3x3, 256  x2  | 3x3, 256  x6  | 1x1-3x3-1x1, 256-1024 x6  | same x23 | same x36 |
| 3     | 7   | 3x3, 512  x2  | 3x3, 512  x3  | 1x1-3x3-1x1, 512-2048 x3  | same x3  | same x3  |
| head  | 1   | mean, 1000 classes                                                               |

A 3x3 entry is a block of two such convolutions. `_v1` strides in the first 1x1 of a bottleneck, as the
paper's FLOPs and its authors' models do; `_v1_5` in the 3x3, as fb.resnet.torch, torchvision and timm.

Departs from paper: `resnet18` has projection shortcuts (option B); Table 2 measures option A.
Departs from paper: `_v1_5` strides in the 3x3 convolution.
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
    BasicBlock,
    Bottleneck,
    PlainBlock,
    ShortcutKind,
    StrideOn,
    check_shortcut,
    check_stride_on,
    make_shortcut,
    zero_last_norms,
)
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity

STAGE_WIDTHS = (64, 128, 256, 512)


def check_depths(depths: object) -> None:
    """Refuses what is not a tuple of four positive whole numbers.

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(depths, tuple) or len(depths) != len(STAGE_WIDTHS):
        raise ValueError(f"`depths`={depths!r}; expected a tuple of {len(STAGE_WIDTHS)} numbers, one a stage")
    for depth in depths:
        check_count("depths", depth, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainConfig(Config):
    """The knobs of a plain network of four stages, and the parts that it is made of.

    Args:
        depths: blocks in each of the four stages.
        depth_mult: how many times as many blocks each stage has; rounded to the nearest number, at least 1.
        width_mult: how many times as many channels the stem and the stages have; multiples of 8.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    depths: tuple[int, ...]
    depth_mult: float = 1.0
    width_mult: float = 1.0
    global_pool: str = "avg"

    base_stem_chans: ClassVar[int] = STAGE_WIDTHS[0]
    min_input_size: ClassVar[int] = 1
    # Whether He's variance counts inputs or outputs of a layer.
    he_mode: ClassVar[str] = "fan_in"

    def __post_init__(self) -> None:
        """Checks the depths and the multipliers.

        Raises:
            ValueError: there are not four depths, or a number is out of its range.
        """
        super().__post_init__()
        check_depths(self.depths)
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return tuple(scale_depth(depth, self.depth_mult) for depth in self.depths)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Width of each stage; a block puts out `expansion` times as many channels."""
        return tuple(scale_chans(width, self.width_mult) for width in STAGE_WIDTHS)

    @property
    def stem_chans(self) -> int:
        """Channels of the stem."""
        return scale_chans(self.base_stem_chans, self.width_mult)

    @property
    def expansion(self) -> int:
        """Channels that a block puts out, for each of its stage's width."""
        return 1

    def make_stem(self) -> nn.Module:
        """Everything before the pooling that opens the first stage."""
        return ConvNormAct(self.in_chans, self.stem_chans, 7, stride=2, padding=3)

    def make_pool(self) -> nn.Module:
        """The pooling that opens the first stage."""
        return nn.MaxPool2d(3, stride=2, padding=1)

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """A block of the network.

        Args:
            in_chans: channels of its input.
            width: of its stage, from `stage_widths`.
            stride: px.
            index: its place in the network, from 0.
        """
        return PlainBlock(in_chans, width, stride=stride)

    def build(self) -> ResNet:
        """Makes the network."""
        return ResNet(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualConfig(PlainConfig):
    """The knobs of every residual network of four stages.

    Args:
        shortcut: "A", "B" or "C" of Section 3.3 and Table 3.
        zero_init_last: begin with every block as its shortcut.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
    """

    shortcut: ShortcutKind = "B"
    zero_init_last: bool = False
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        """Checks the option.

        Raises:
            ValueError: `shortcut` is unknown.
        """
        super().__post_init__()
        check_shortcut(self.shortcut)

    def drop_path_rate_at(self, index: int) -> float:
        """Stochastic depth of the block at `index` in the network."""
        return linear_drop_rates(self.drop_path_rate, sum(self.stage_depths))[index]

    def make_block(self, in_chans: int, width: int, stride: int, index: int) -> nn.Module:
        """Left to each paper."""
        raise NotImplementedError(f"{type(self).__name__} does not say which block it has")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(ResidualConfig):
    """The knobs of ResNet.

    Args:
        bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions rather than of two 3x3.
        stride_on: which convolution of a bottleneck strides, "1x1" (v1) or "3x3" (v1.5).
    """

    bottleneck: bool = False
    stride_on: StrideOn = "3x3"

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
        """A block of Figure 5."""
        out_chans = width * self.expansion
        shortcut = make_shortcut(self.shortcut, in_chans, out_chans, stride)
        drop_path_rate = self.drop_path_rate_at(index)
        if not self.bottleneck:
            return BasicBlock(in_chans, out_chans, shortcut, stride=stride, drop_path_rate=drop_path_rate)
        return Bottleneck(
            in_chans,
            width,
            out_chans,
            shortcut,
            stride=stride,
            stride_on=self.stride_on,
            drop_path_rate=drop_path_rate,
        )


def make_stages(config: PlainConfig) -> nn.ModuleList:
    """The four stages, each a sequence of `config`'s blocks; all but the first halve H and W."""
    stages = nn.ModuleList()
    in_chans, index = config.stem_chans, 0
    for i, (width, depth) in enumerate(zip(config.stage_widths, config.stage_depths, strict=True)):
        blocks: list[nn.Module] = []
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(config.make_block(in_chans, width, stride, index))
            in_chans, index = width * config.expansion, index + 1
        stages.append(nn.Sequential(*blocks))
    return stages


class ResNet(Network[PlainConfig]):
    """Four stages of blocks behind a stem and a pooling: ResNet, and its descendants with other blocks.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: resnet50_v1_5.
    """

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.min_input_size = config.min_input_size
        chans = [width * config.expansion for width in config.stage_widths]
        self.feature_info = FeatureInfo(
            [
                Feature("stem", config.stem_chans, 2),
                *(Feature(f"stages.{i}", c, 4 * 2**i) for i, c in enumerate(chans)),
            ]
        )
        self.num_features = self.head_hidden_size = chans[-1]
        self.stem = config.make_stem()
        self.pool = config.make_pool()
        self.stages = make_stages(config)
        self.head = ClassifierHead(
            self.num_features,
            config.num_classes,
            global_pool=config.global_pool,
            drop_rate=config.drop_rate,
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 64, H/2, W/2)
        x = self.pool(x)  # (B, 64, H/4, W/4)
        x = tap(self.stages[0](x))  # (B, 256, H/4, W/4)
        x = tap(self.stages[1](x))  # (B, 512, H/8, W/8)
        x = tap(self.stages[2](x))  # (B, 1024, H/16, W/16)
        x = tap(self.stages[3](x))  # (B, 2048, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule for convolutions (Section 3.4); the classifier, where it is silent, as torch's own."""
        init_layers(root, conv=partial(he_normal_, mode=self.config.he_mode), linear=linear_uniform_)
        if isinstance(self.config, ResidualConfig) and self.config.zero_init_last:
            zero_last_norms(root)


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Table 1: blocks in each stage, by the number of layers."""

VARIANTS = {
    "plain18": PlainConfig(depths=DEPTHS[18]),
    "plain34": PlainConfig(depths=DEPTHS[34]),
    "resnet18": ResNetConfig(depths=DEPTHS[18]),
    "resnet34": ResNetConfig(depths=DEPTHS[34]),
    "resnet50_v1": ResNetConfig(depths=DEPTHS[50], bottleneck=True, stride_on="1x1"),
    "resnet50_v1_5": ResNetConfig(depths=DEPTHS[50], bottleneck=True),
    "resnet101_v1": ResNetConfig(depths=DEPTHS[101], bottleneck=True, stride_on="1x1"),
    "resnet101_v1_5": ResNetConfig(depths=DEPTHS[101], bottleneck=True),
    "resnet152_v1": ResNetConfig(depths=DEPTHS[152], bottleneck=True, stride_on="1x1"),
    "resnet152_v1_5": ResNetConfig(depths=DEPTHS[152], bottleneck=True),
}
