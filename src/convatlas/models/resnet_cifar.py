"""ResNet on CIFAR, and the plain networks that it is compared with.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", Section 4.2.

| stage | px | 6n + 2 layers         |
|-------|----|-----------------------|
| stem  | 32 | 3x3, 16               |
| 0     | 32 | two 3x3, 16   xn      |
| 1     | 16 | two 3x3, 32   xn      |
| 2     | 8  | two 3x3, 64   xn      |
| head  | 1  | mean, 10 classes      |

n is 3, 5, 7, 9, 18 or 200. All shortcuts are identities (option A), so that a residual network has exactly
the parameters of its plain counterpart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import he_normal_, init_layers, linear_uniform_
from convatlas.blocks.residual import (
    BasicBlock,
    PlainBlock,
    ShortcutKind,
    check_shortcut,
    make_shortcut,
    zero_last_norms,
)
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import CIFAR_DIVISOR, scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity

MakeBlock = Callable[[int, int, int, int], nn.Module]
"""Makes a block from its input's channels, its output's channels, its stride and its place in the network."""


def stack_stages(
    in_chans: int,
    stage_chans: tuple[int, ...],
    depths: tuple[int, ...],
    make_block: MakeBlock,
) -> nn.ModuleList:
    """Stages of residual blocks, each a sequence; all but the first halve H and W in their first block.

    Args:
        in_chans: channels that enter the first stage.
        stage_chans: channels that leave each stage.
        depths: blocks in each stage.
        make_block: makes a block.
    """
    stages = nn.ModuleList()
    index = 0
    for i, (chans, depth) in enumerate(zip(stage_chans, depths, strict=True)):
        blocks: list[nn.Module] = []
        for j in range(depth):
            blocks.append(make_block(in_chans, chans, 2 if i > 0 and j == 0 else 1, index))
            in_chans, index = chans, index + 1
        stages.append(nn.Sequential(*blocks))
    return stages


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainCifarConfig(Config):
    """The knobs of a plain network, and the parts that it is made of.

    Args:
        blocks_per_stage: n; the network has 6n + 2 layers.
        depth_mult: how many times as many blocks each stage has; rounded to the nearest number, at least 1.
        width_mult: how many times as many channels the stages have; multiples of 4.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    num_classes: int = 10
    blocks_per_stage: int
    depth_mult: float = 1.0
    width_mult: float = 1.0
    global_pool: str = "avg"

    base_chans: ClassVar[tuple[int, ...]] = (16, 32, 64)

    def __post_init__(self) -> None:
        """Checks the depth and the multipliers.

        Raises:
            ValueError: `blocks_per_stage` is not a positive whole number, or a multiplier is not above 0.
        """
        super().__post_init__()
        check_count("blocks_per_stage", self.blocks_per_stage, least=1)
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return (scale_depth(self.blocks_per_stage, self.depth_mult),) * len(self.base_chans)

    @property
    def stage_chans(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(scale_chans(chans, self.width_mult, CIFAR_DIVISOR) for chans in self.base_chans)

    def make_block(self, in_chans: int, out_chans: int, stride: int, index: int) -> nn.Module:
        """A block of the network.

        Args:
            in_chans: channels of its input.
            out_chans: channels of its output.
            stride: px.
            index: its place in the network, from 0.
        """
        return PlainBlock(in_chans, out_chans, stride=stride)

    def build(self) -> ResNetCifar:
        """Makes the network."""
        return ResNetCifar(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetCifarConfig(PlainCifarConfig):
    """The knobs of a residual network.

    Args:
        shortcut: "A", "B" or "C" of Section 3.3 and Table 3.
        zero_init_last: begin with every block as its shortcut.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
    """

    shortcut: ShortcutKind = "A"
    zero_init_last: bool = False
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        """Checks the option.

        Raises:
            ValueError: `shortcut` is unknown.
        """
        super().__post_init__()
        check_shortcut(self.shortcut)

    def make_block(self, in_chans: int, out_chans: int, stride: int, index: int) -> nn.Module:
        """A block of two 3x3 convolutions and its shortcut."""
        rates = linear_drop_rates(self.drop_path_rate, sum(self.stage_depths))
        return BasicBlock(
            in_chans,
            out_chans,
            make_shortcut(self.shortcut, in_chans, out_chans, stride),
            stride=stride,
            drop_path_rate=rates[index],
        )


class ResNetCifar(Network[PlainCifarConfig]):
    """Three stages of blocks behind one 3x3 convolution.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: resnet20_cifar.
    """

    def __init__(self, config: PlainCifarConfig) -> None:
        super().__init__(config)
        chans = config.stage_chans
        self.feature_info = FeatureInfo(
            [Feature("stem", chans[0], 1), *(Feature(f"stages.{i}", c, 2**i) for i, c in enumerate(chans))]
        )
        self.num_features = self.head_hidden_size = chans[-1]
        self.min_input_size = 1
        self.stem = ConvNormAct(config.in_chans, chans[0], 3, padding=1)
        self.stages = stack_stages(chans[0], chans, config.stage_depths, config.make_block)
        self.head = ClassifierHead(
            self.num_features,
            config.num_classes,
            global_pool=config.global_pool,
            drop_rate=config.drop_rate,
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 16, H, W)
        x = tap(self.stages[0](x))  # (B, 16, H, W)
        x = tap(self.stages[1](x))  # (B, 32, H/2, W/2)
        x = tap(self.stages[2](x))  # (B, 64, H/4, W/4)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule for convolutions (Section 3.4); the classifier, where it is silent, as torch's own."""
        init_layers(root, conv=he_normal_, linear=linear_uniform_)
        if isinstance(self.config, ResNetCifarConfig) and self.config.zero_init_last:
            zero_last_norms(root)


VARIANTS = {
    "plain20_cifar": PlainCifarConfig(blocks_per_stage=3),
    "plain32_cifar": PlainCifarConfig(blocks_per_stage=5),
    "plain44_cifar": PlainCifarConfig(blocks_per_stage=7),
    "plain56_cifar": PlainCifarConfig(blocks_per_stage=9),
    "plain110_cifar": PlainCifarConfig(blocks_per_stage=18),
    "resnet20_cifar": ResNetCifarConfig(blocks_per_stage=3),
    "resnet32_cifar": ResNetCifarConfig(blocks_per_stage=5),
    "resnet44_cifar": ResNetCifarConfig(blocks_per_stage=7),
    "resnet56_cifar": ResNetCifarConfig(blocks_per_stage=9),
    "resnet110_cifar": ResNetCifarConfig(blocks_per_stage=18),
    "resnet1202_cifar": ResNetCifarConfig(blocks_per_stage=200),
}
