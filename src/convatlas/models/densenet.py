"""DenseNet on ImageNet and on CIFAR.

Huang, Liu, van der Maaten and Weinberger 2016, "Densely Connected Convolutional Networks", Table 1.

| stage | px  | 121 (k=32) | 169 (k=32) | 201 (k=32) | 264 (k=32) | 161 (k=48) |
|-------|-----|------------|------------|------------|------------|------------|
| stem  | 112 | 7x7, 2k channels, stride 2                                       |
| 0     | 56  | 3x3 max pool, stride 2                                           |
|       |     | 6 layers   | 6          | 6          | 6          | 6          |
| 1     | 28  | 12 layers  | 12         | 12         | 12         | 12         |
| 2     | 14  | 24 layers  | 32         | 48         | 64         | 36         |
| 3     | 7   | 16 layers  | 32         | 32         | 48         | 24         |
| head  | 1   | mean, 1000 classes                                               |

A layer is BN-ReLU-1x1 to 4k channels, BN-ReLU-3x3 to k, and sees all maps of its block. Before stages 1 to 3
a transition halves channels and px; after the last comes BN-ReLU. 161 is in the authors' code and in an early
version of the paper.

CIFAR networks have three blocks of (L-4)/3 layers (half as many with bottlenecks) at 32, 16 and 8 px behind
one 3x3 convolution: to 16 channels without bottlenecks and compression, to 2k with both ("BC").
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.dense import DenseBlock, Transition
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import he_normal_, init_layers, linear_uniform_
from convatlas.blocks.preact import NormAct
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity


def check_depths(depths: object, num_stages: int) -> None:
    """Refuses what is not a tuple of `num_stages` positive whole numbers.

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(depths, tuple) or len(depths) != num_stages:
        raise ValueError(f"`depths`={depths!r}; expected a tuple of {num_stages} numbers, one a block")
    for depth in depths:
        check_count("depths", depth, least=1)


def check_compression(compression: object, stem_chans: int) -> None:
    """Refuses what is not a share in (0, 1], or leaves a transition without channels.

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(compression, int | float) or not 1 / stem_chans <= compression <= 1:
        raise ValueError(
            f"`compression`={compression!r}; expected a share of at least 1/{stem_chans} and at most 1"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseNetConfig(Config):
    """The knobs of DenseNet.

    Args:
        depths: layers in each dense block.
        growth: k, channels that a layer makes.
        stem_chans: channels before the first block.
        depth_mult: how many times as many layers each block has; rounded to the nearest number, at least 1.
        width_mult: how many times as large the growth and the stem are; multiples of 4.
        bottleneck: a 1x1 convolution to 4k channels before each 3x3 ("B").
        compression: theta, the share of channels that a transition keeps ("C" where it is below 1).
        layer_drop_rate: dropout after each convolution but the first (0.2 in the paper's runs without
            augmentation).
        memory_efficient: while training, make joined maps again rather than keep them; same gradients.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    depths: tuple[int, ...]
    growth: int
    stem_chans: int
    depth_mult: float = 1.0
    width_mult: float = 1.0
    bottleneck: bool = True
    compression: float = 0.5
    layer_drop_rate: float = 0.0
    memory_efficient: bool = False
    global_pool: str = "avg"

    num_stages: ClassVar[int] = 4
    stem_stride: ClassVar[int] = 2
    # Three poolings of two px that round down, behind a quarter that rounds up.
    min_input_size: ClassVar[int] = 29

    def __post_init__(self) -> None:
        """Checks the counts and the compression.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_depths(self.depths, self.num_stages)
        check_count("growth", self.growth, least=1)
        check_count("stem_chans", self.stem_chans, least=1)
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)
        check_compression(self.compression, self.scaled_stem_chans)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Layers in each block."""
        return tuple(scale_depth(depth, self.depth_mult) for depth in self.depths)

    @property
    def scaled_growth(self) -> int:
        """Channels that a layer makes, at this width."""
        return scale_chans(self.growth, self.width_mult, 4)

    @property
    def scaled_stem_chans(self) -> int:
        """Channels before the first block, at this width."""
        return scale_chans(self.stem_chans, self.width_mult, 4)

    def make_stem(self) -> nn.Module:
        """Everything before the pooling that opens the first stage."""
        return ConvNormAct(self.in_chans, self.scaled_stem_chans, 7, stride=2, padding=3)

    def build(self) -> DenseNet:
        """Makes the network."""
        return DenseNet(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseNetCifarConfig(DenseNetConfig):
    """The knobs of DenseNet on CIFAR."""

    num_classes: int = 10

    num_stages: ClassVar[int] = 3
    stem_stride: ClassVar[int] = 1
    min_input_size: ClassVar[int] = 4

    def make_stem(self) -> nn.Module:
        """One convolution; the first layer brings its own normalisation."""
        return ConvNormAct(
            self.in_chans, self.scaled_stem_chans, 3, padding=1, norm=None, act=None, bias=False
        )

    def build(self) -> DenseNetCifar:
        """Makes the network."""
        return DenseNetCifar(self)


def make_stages(config: DenseNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """The stages, each a dense block behind (but for the first) a transition, and their channels."""
    stages = nn.ModuleList()
    out_chans: list[int] = []
    chans, growth = config.scaled_stem_chans, config.scaled_growth
    for i, depth in enumerate(config.stage_depths):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if i > 0:
            kept = int(chans * config.compression)
            parts["transition"] = Transition(chans, kept, drop_rate=config.layer_drop_rate)
            chans = kept
        parts["block"] = DenseBlock(
            chans,
            depth,
            growth,
            bottleneck_chans=4 * growth if config.bottleneck else None,
            drop_rate=config.layer_drop_rate,
            memory_efficient=config.memory_efficient,
        )
        chans += depth * growth
        stages.append(nn.Sequential(parts))
        out_chans.append(chans)
    return stages, out_chans


class DenseNet(Network[DenseNetConfig]):
    """Dense blocks behind a stem, with transitions between them.

    The last feature map is that of the last block after `final`, its normalisation and activation.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: densenet121.
    """

    def __init__(self, config: DenseNetConfig) -> None:
        super().__init__(config)
        self.min_input_size = config.min_input_size
        self.stem = config.make_stem()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if config.stem_stride > 1 else nn.Identity()
        self.stages, chans = make_stages(config)
        self.final = NormAct(chans[-1])
        names = [*(f"stages.{i}" for i in range(len(chans) - 1)), "final"]
        strides = [config.stem_stride**2 * 2**i for i in range(len(chans))]
        self.feature_info = FeatureInfo(
            [
                Feature("stem", config.scaled_stem_chans, config.stem_stride),
                *map(Feature, names, chans, strides),
            ]
        )
        self.num_features = self.head_hidden_size = chans[-1]
        self.head = ClassifierHead(
            self.num_features, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 64, H/2, W/2)
        x = self.pool(x)  # (B, 64, H/4, W/4)
        x = tap(self.stages[0](x))  # (B, 256, H/4, W/4)
        x = tap(self.stages[1](x))  # (B, 512, H/8, W/8)
        x = tap(self.stages[2](x))  # (B, 1024, H/16, W/16)
        x = self.stages[3](x)  # (B, 1024, H/32, W/32)
        x = tap(self.final(x))  # (B, 1024, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """He's rule for convolutions (Section 4.2); the classifier, where it is silent, as torch's own."""
        init_layers(root, conv=he_normal_, linear=linear_uniform_)


class DenseNetCifar(DenseNet):
    """Three dense blocks at 32, 16 and 8 px.

    Shapes in comments: densenet_bc100_12_cifar.
    """

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 24, H, W)
        x = tap(self.stages[0](x))  # (B, 216, H, W)
        x = tap(self.stages[1](x))  # (B, 300, H/2, W/2)
        x = self.stages[2](x)  # (B, 342, H/4, W/4)
        x = tap(self.final(x))  # (B, 342, H/4, W/4)
        return x


VARIANTS = {
    "densenet121": DenseNetConfig(depths=(6, 12, 24, 16), growth=32, stem_chans=64),
    "densenet161": DenseNetConfig(depths=(6, 12, 36, 24), growth=48, stem_chans=96),
    "densenet169": DenseNetConfig(depths=(6, 12, 32, 32), growth=32, stem_chans=64),
    "densenet201": DenseNetConfig(depths=(6, 12, 48, 32), growth=32, stem_chans=64),
    "densenet264": DenseNetConfig(depths=(6, 12, 64, 48), growth=32, stem_chans=64),
    "densenet40_12_cifar": DenseNetCifarConfig(
        depths=(12, 12, 12), growth=12, stem_chans=16, bottleneck=False, compression=1.0
    ),
    "densenet_bc100_12_cifar": DenseNetCifarConfig(depths=(16, 16, 16), growth=12, stem_chans=24),
    "densenet_bc250_24_cifar": DenseNetCifarConfig(depths=(41, 41, 41), growth=24, stem_chans=48),
    "densenet_bc190_40_cifar": DenseNetCifarConfig(depths=(31, 31, 31), growth=40, stem_chans=80),
}
