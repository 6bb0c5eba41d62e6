"""Pre-activation ResNet, on ImageNet and on CIFAR.

He, Zhang, Ren and Sun 2016, "Identity Mappings in Deep Residual Networks", Figure 4(e) and Section 4. The
stages are those of ResNet; each convolution comes after its normalisation and ReLU, and nothing comes after
the addition.

| stage | px  | 200 (ImageNet)             | px | 164 and 1001 (CIFAR)      | 110 (CIFAR)      |
|-------|-----|----------------------------|----|---------------------------|------------------|
| stem  | 112 | 7x7, 64, stride 2          | 32 | 3x3, 16                   | 3x3, 16          |
| 0     | 56  | 3x3 max pool, stride 2     |    |                           |                  |
|       |     | 1x1-3x3-1x1, 64-256   x3   | 32 | 1x1-3x3-1x1, 16-64   xn   | 2 3x3, 16   x18  |
| 1     | 28  | 1x1-3x3-1x1, 128-512  x24  | 16 | 1x1-3x3-1x1, 32-128  xn   | 2 3x3, 32   x18  |
| 2     | 14  | 1x1-3x3-1x1, 256-1024 x36  | 8  | 1x1-3x3-1x1, 64-256  xn   | 2 3x3, 64   x18  |
| 3     | 7   | 1x1-3x3-1x1, 512-2048 x3   |    |                           |                  |
| norm  |     | batch norm, ReLU           |    | batch norm, ReLU          | batch norm, ReLU |

n is 18 for 164 layers and 111 for 1001. The activation that opens a stage comes before its two paths split.
Projections have no normalisation. The CIFAR bottlenecks stride in the first 1x1, as the authors' code for
them; the ImageNet ones in the 3x3, as fb.resnet.torch.

Departs from paper: 18, 34, 50 and 101 layers on ImageNet are not in its tables; they follow by the same rule.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import he_normal_, init_layers, linear_uniform_
from convatlas.blocks.preact import NormAct, PreActBasicBlock, PreActBottleneck, zero_last_convs
from convatlas.blocks.residual import ShortcutKind, StrideOn, check_shortcut, check_stride_on, make_shortcut
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import CIFAR_DIVISOR, scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity
from convatlas.models.resnet import DEPTHS, STAGE_WIDTHS, check_depths
from convatlas.models.resnet_cifar import stack_stages

CIFAR_STAGE_WIDTHS = (16, 32, 64)

FirstAct = Literal["both", "stem", "unit"]
"""Where the first activation is: in the stem, before the pool; in the first unit, after it; or in both."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreActConfig(Config):
    """The knobs of every pre-activation network, and the parts that it is made of.

    Args:
        shortcut: "A", "B" or "C" of ResNet's paper.
        zero_init_last: begin with every block as its shortcut.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    shortcut: ShortcutKind = "B"
    zero_init_last: bool = False
    drop_path_rate: float = 0.0
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the option.

        Raises:
            ValueError: `shortcut` is unknown.
        """
        super().__post_init__()
        check_shortcut(self.shortcut)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        raise NotImplementedError(f"{type(self).__name__} does not say how deep its stages are")

    @property
    def stage_chans(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        raise NotImplementedError(f"{type(self).__name__} does not say how wide its stages are")

    @property
    def stem_chans(self) -> int:
        """Channels of the stem."""
        raise NotImplementedError(f"{type(self).__name__} does not say how wide its stem is")

    def make_block(self, in_chans: int, out_chans: int, stride: int, index: int) -> nn.Module:
        """A block of the network.

        Args:
            in_chans: channels of its input.
            out_chans: channels of its output.
            stride: px.
            index: its place in the network, from 0.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which block it has")

    def drop_path_rate_at(self, index: int) -> float:
        """Stochastic depth of the block at `index` in the network."""
        return linear_drop_rates(self.drop_path_rate, sum(self.stage_depths))[index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitConfig(PreActConfig):
    """The knobs of the paper's residual units.

    Args:
        bottleneck: units of 1x1, 3x3 and 1x1 convolutions rather than of two 3x3.
        stride_on: which convolution of a bottleneck strides, "1x1" or "3x3".
        depth_mult: how many times as many units each stage has; rounded to the nearest number, at least 1.
        width_mult: how many times as many channels the stem and the stages have; multiples of 8 (ImageNet)
            or 4 (CIFAR).
    """

    bottleneck: bool = False
    stride_on: StrideOn = "3x3"
    depth_mult: float = 1.0
    width_mult: float = 1.0

    def __post_init__(self) -> None:
        """Checks the place of the stride and the multipliers.

        Raises:
            ValueError: the place is unknown, or on a 1x1 convolution that units of two 3x3 do not have; or a
                multiplier is not above 0.
        """
        super().__post_init__()
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)
        check_stride_on(self.stride_on)
        if self.stride_on == "1x1" and not self.bottleneck:
            raise ValueError('`stride_on`="1x1" needs `bottleneck`=True: a unit of two 3x3 has no 1x1')

    @property
    def expansion(self) -> int:
        """Channels that a unit puts out, for each of its inner width."""
        return 4 if self.bottleneck else 1

    def has_preact(self, index: int) -> bool:
        """Whether the unit at `index` begins with an activation."""
        return True

    def make_block(self, in_chans: int, out_chans: int, stride: int, index: int) -> nn.Module:
        """A unit of Figure 4(e)."""
        shortcut = make_shortcut(self.shortcut, in_chans, out_chans, stride, norm=None)
        preact, drop_path_rate = self.has_preact(index), self.drop_path_rate_at(index)
        # The first unit of each stage; the paper names the network's first, fb.resnet.torch does it in all.
        shared = index == 0 or in_chans != out_chans
        if not self.bottleneck:
            return PreActBasicBlock(
                in_chans,
                out_chans,
                shortcut,
                stride=stride,
                preact=preact,
                shared=shared,
                drop_path_rate=drop_path_rate,
            )
        return PreActBottleneck(
            in_chans,
            out_chans // self.expansion,
            out_chans,
            shortcut,
            stride=stride,
            stride_on=self.stride_on,
            preact=preact,
            shared=shared,
            drop_path_rate=drop_path_rate,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreActResNetConfig(UnitConfig):
    """The knobs of pre-activation ResNet on ImageNet.

    Args:
        depths: units in each of the four stages.
        first_act: where the first activation is. "both": after the 7x7 convolution and in the first unit;
            "stem": after the convolution alone, as fb.resnet.torch; "unit": after the pool, as timm.
    """

    depths: tuple[int, ...]
    first_act: FirstAct = "both"

    def __post_init__(self) -> None:
        """Checks the depths and the place of the first activation.

        Raises:
            ValueError: there are not four depths, one is not positive, or the place is unknown.
        """
        super().__post_init__()
        check_depths(self.depths)
        if self.first_act not in ("both", "stem", "unit"):
            raise ValueError(
                f'`first_act`={self.first_act!r}; allowed are "both", "stem" (after the 7x7 convolution) and '
                '"unit" (after the pool)'
            )

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Units in each stage."""
        return tuple(scale_depth(depth, self.depth_mult) for depth in self.depths)

    @property
    def stage_chans(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(scale_chans(width, self.width_mult) * self.expansion for width in STAGE_WIDTHS)

    @property
    def stem_chans(self) -> int:
        """Channels of the stem."""
        return scale_chans(STAGE_WIDTHS[0], self.width_mult)

    def has_preact(self, index: int) -> bool:
        """Whether the unit at `index` begins with an activation."""
        return index > 0 or self.first_act != "stem"

    def build(self) -> PreActResNet:
        """Makes the network."""
        return PreActResNet(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreActResNetCifarConfig(UnitConfig):
    """The knobs of pre-activation ResNet on CIFAR.

    Args:
        blocks_per_stage: n; the network has 6n + 2 layers, or 9n + 2 with bottlenecks.
    """

    num_classes: int = 10
    blocks_per_stage: int

    def __post_init__(self) -> None:
        """Checks the depth.

        Raises:
            ValueError: `blocks_per_stage` is not a positive whole number.
        """
        super().__post_init__()
        check_count("blocks_per_stage", self.blocks_per_stage, least=1)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Units in each stage."""
        return (scale_depth(self.blocks_per_stage, self.depth_mult),) * len(CIFAR_STAGE_WIDTHS)

    @property
    def stage_chans(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        widths = (scale_chans(width, self.width_mult, CIFAR_DIVISOR) for width in CIFAR_STAGE_WIDTHS)
        return tuple(width * self.expansion for width in widths)

    @property
    def stem_chans(self) -> int:
        """Channels of the stem."""
        return scale_chans(CIFAR_STAGE_WIDTHS[0], self.width_mult, CIFAR_DIVISOR)

    def build(self) -> PreActResNetCifar:
        """Makes the network."""
        return PreActResNetCifar(self)


def make_head(config: PreActConfig) -> ClassifierHead:
    """Global pooling and a linear layer on the last stage's channels."""
    return ClassifierHead(
        config.stage_chans[-1],
        config.num_classes,
        global_pool=config.global_pool,
        drop_rate=config.drop_rate,
    )


def init_preact(root: nn.Module, config: PreActConfig) -> None:
    """He's rule over a layer's outputs, as the authors' code; the classifier as torch's own."""
    init_layers(root, conv=partial(he_normal_, mode="fan_out"), linear=linear_uniform_)
    if config.zero_init_last:
        zero_last_convs(root)


class PreActResNet(Network[PreActResNetConfig]):
    """Four stages of pre-activation units behind a stem and a pooling.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: preact_resnet50.
    """

    def __init__(self, config: PreActResNetConfig) -> None:
        super().__init__(config)
        stem_chans, chans = config.stem_chans, config.stage_chans
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, 2),
                *(Feature(f"stages.{i}", c, 4 * 2**i) for i, c in enumerate(chans[:-1])),
                Feature("norm", chans[-1], 32),
            ]
        )
        self.num_features = self.head_hidden_size = chans[-1]
        self.min_input_size = 1
        norm, act = (nn.BatchNorm2d, relu) if config.first_act != "unit" else (None, None)
        self.stem = ConvNormAct(
            config.in_chans, stem_chans, 7, stride=2, padding=3, norm=norm, act=act, bias=False
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = stack_stages(stem_chans, chans, config.stage_depths, config.make_block)
        self.norm = NormAct(chans[-1])
        self.head = make_head(config)

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem, the stages and the last activation."""
        x = tap(self.stem(x))  # (B, 64, H/2, W/2)
        x = self.pool(x)  # (B, 64, H/4, W/4)
        x = tap(self.stages[0](x))  # (B, 256, H/4, W/4)
        x = tap(self.stages[1](x))  # (B, 512, H/8, W/8)
        x = tap(self.stages[2](x))  # (B, 1024, H/16, W/16)
        x = self.stages[3](x)  # (B, 2048, H/32, W/32)
        x = tap(self.norm(x))  # (B, 2048, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule over a layer's outputs; the classifier as torch's own."""
        init_preact(root, self.config)


class PreActResNetCifar(Network[PreActConfig]):
    """Three stages of pre-activation blocks behind one 3x3 convolution: pre-activation and wide ResNets.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: preact_resnet164_cifar.
    """

    def __init__(self, config: PreActConfig) -> None:
        super().__init__(config)
        stem_chans, chans = config.stem_chans, config.stage_chans
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, 1),
                *(Feature(f"stages.{i}", c, 2**i) for i, c in enumerate(chans[:-1])),
                Feature("norm", chans[-1], 4),
            ]
        )
        self.num_features = self.head_hidden_size = chans[-1]
        self.min_input_size = 1
        self.stem = ConvNormAct(config.in_chans, stem_chans, 3, padding=1, norm=None, act=None, bias=False)
        self.stages = stack_stages(stem_chans, chans, config.stage_depths, config.make_block)
        self.norm = NormAct(chans[-1])
        self.head = make_head(config)

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem, the stages and the last activation."""
        x = tap(self.stem(x))  # (B, 16, H, W)
        x = tap(self.stages[0](x))  # (B, 64, H, W)
        x = tap(self.stages[1](x))  # (B, 128, H/2, W/2)
        x = self.stages[2](x)  # (B, 256, H/4, W/4)
        x = tap(self.norm(x))  # (B, 256, H/4, W/4)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule over a layer's outputs; the classifier as torch's own."""
        init_preact(root, self.config)


VARIANTS = {
    "preact_resnet18": PreActResNetConfig(depths=DEPTHS[18]),
    "preact_resnet34": PreActResNetConfig(depths=DEPTHS[34]),
    "preact_resnet50": PreActResNetConfig(depths=DEPTHS[50], bottleneck=True),
    "preact_resnet101": PreActResNetConfig(depths=DEPTHS[101], bottleneck=True),
    "preact_resnet152": PreActResNetConfig(depths=DEPTHS[152], bottleneck=True),
    "preact_resnet200": PreActResNetConfig(depths=(3, 24, 36, 3), bottleneck=True),
    "preact_resnet110_cifar": PreActResNetCifarConfig(blocks_per_stage=18, shortcut="A"),
    "preact_resnet164_cifar": PreActResNetCifarConfig(blocks_per_stage=18, bottleneck=True, stride_on="1x1"),
    "preact_resnet1001_cifar": PreActResNetCifarConfig(
        blocks_per_stage=111, bottleneck=True, stride_on="1x1"
    ),
}
