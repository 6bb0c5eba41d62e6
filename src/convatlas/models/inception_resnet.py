"""Inception-ResNet v1 and v2: Inception modules on residual connections.

Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", Figure 15 and, for the parts, Figures 7 and 10 to 14 (v1), 3, 7 and 16 to 19 (v2).

| stage | px  | v1                                          | v2                                     |
|-------|-----|---------------------------------------------|----------------------------------------|
| stem  | 147 | 3x3, 32, stride 2; 3x3, 32; 3x3, 64 padded  | same                                   |
| 0     | 71  | 3x3 max pool, stride 2; 1x1, 80; 3x3, 192   | same                                   |
| 1     | 35  | 3x3, 256, stride 2; A x5                    | 3x3 max pool, stride 2; mix, 320; A x10|
| 2     | 17  | Reduction-A, 896; B x10                     | Reduction-A, 1088; B x20               |
| 3     | 8   | Reduction-B, 1792; C x5                     | Reduction-B, 2080; C x10; 1x1, 1536    |
| head  | 1   | mean, dropout 20 %, 1000 classes            | same                                   |

`inception_resnet_v1` follows the figures; FaceNet's, which others copied, has a sixth C without activation
(`depths=(5, 10, 6), plain_last=True`). `inception_resnet_v2` follows the authors' release (TF-slim), from
which all published weights come.

Departs from paper: v2 has Inception v3's stem and one module more, where Figure 15 has Inception v4's stem;
320, 1088 and 2080 channels where the figures print 384, 1154 and 2048; 10, 20 and 10 modules where Figure 15
draws 5, 10 and 5; a last module that is neither scaled nor activated; and a last 1x1 convolution that no
figure has.
Departs from paper: the paper scales branches by 0.1 to 0.3 and says no more; both networks have the release's
0.17, 0.10 and 0.20.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from torch import Tensor, nn

from convatlas.blocks.conv import relu
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import Branch, Conv, InceptionMix, InceptionResidual, he_uniform_
from convatlas.blocks.init import init_layers, xavier_uniform_
from convatlas.blocks.separable import check_mult
from convatlas.models.inception_v4 import Scale, check_three
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity


class Widths(NamedTuple):
    """Channels of each convolution of a version; branches in the order of the figures.

    Attributes:
        a: Inception-ResNet-A: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3.
        reduction_a: k, l, m, n of Table 1.
        b: Inception-ResNet-B: 1x1; 1x1, 1x7, 7x1.
        reduction_b: 1x1, 3x3; 1x1, 3x3; 1x1, 3x3, 3x3.
        c: Inception-ResNet-C: 1x1; 1x1, 1x3, 3x1.
    """

    a: tuple[int, int, int, int, int, int]
    reduction_a: tuple[int, int, int, int]
    b: tuple[int, int, int, int]
    reduction_b: tuple[int, int, int, int, int, int, int]
    c: tuple[int, int, int, int]


WIDTHS = {
    1: Widths(
        a=(32, 32, 32, 32, 32, 32),
        reduction_a=(192, 192, 256, 384),
        b=(128, 128, 128, 128),
        reduction_b=(256, 384, 256, 256, 256, 256, 256),
        c=(192, 192, 192, 192),
    ),
    2: Widths(
        a=(32, 32, 32, 32, 48, 64),
        reduction_a=(256, 256, 384, 384),
        b=(192, 128, 160, 192),
        reduction_b=(256, 384, 256, 288, 256, 288, 320),
        c=(192, 192, 224, 256),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionResNetConfig(Config):
    """The knobs of Inception-ResNet.

    Args:
        version: 1 or 2, of the stem and the widths.
        depths: number of Inception-ResNet-A, -B and -C modules.
        width_mult: how many times as many channels every layer has; multiples of 8.
        depth_mult: how many times as many modules of each kind there are; rounded to the nearest number.
        scales: what their branches are multiplied by before they are added.
        plain_last: the last module is neither scaled nor followed by an activation.
        zero_init_last: begin with every module as its shortcut.
        drop_path_rate: stochastic depth of the last module; earlier ones have less, in proportion.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    drop_rate: float = 0.2
    version: Literal[1, 2]
    depths: tuple[int, int, int]
    width_mult: float = 1.0
    depth_mult: float = 1.0
    scales: tuple[float, float, float] = (0.17, 0.10, 0.20)
    plain_last: bool
    zero_init_last: bool = False
    drop_path_rate: float = 0.0
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the version, the depths and the scales.

        Raises:
            ValueError: if a value is not as described above.
        """
        super().__post_init__()
        if self.version not in WIDTHS:
            raise ValueError(f"`version`={self.version!r}; allowed are 1 and 2")
        check_three("depths", self.depths)
        check_three("scales", self.scales)
        for depth in self.depths:
            check_count("depths", depth, least=1)
        check_mult("width_mult", self.width_mult)
        check_mult("depth_mult", self.depth_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Modules of each kind."""
        return tuple(scale_depth(depth, self.depth_mult) for depth in self.depths)

    @property
    def widths(self) -> Widths:
        """Channels of each convolution, at this width."""
        rows = (tuple(map(self.scale, chans)) for chans in WIDTHS[self.version])
        return Widths(*rows)  # pyright: ignore[reportArgumentType]

    def scale(self, chans: int) -> int:
        """Channels at this width."""
        return scale_chans(chans, self.width_mult)

    def build(self) -> InceptionResNet:
        """Makes the network."""
        return InceptionResNet(self)


def mix_a(in_chans: int, widths: Widths) -> InceptionMix:
    """Figures 10 and 16, at 35 px."""
    single, reduce, conv, reduce_double, first, second = widths.a
    double = Conv(reduce_double, 1), Conv(first, 3, padding=1), Conv(second, 3, padding=1)
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(single, 1)),
            "conv3x3": Branch(in_chans, Conv(reduce, 1), Conv(conv, 3, padding=1)),
            "double3x3": Branch(in_chans, *double),
        }
    )


def reduction_a(in_chans: int, widths: Widths) -> InceptionMix:
    """Figure 7, from 35 to 17 px."""
    k, l, m, n = widths.reduction_a  # noqa: E741 (the paper's letters)
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(n, 3, stride=2)),
            "double3x3": Branch(in_chans, Conv(k, 1), Conv(l, 3, padding=1), Conv(m, 3, stride=2)),
            "pool": Branch(in_chans, nn.MaxPool2d(3, stride=2)),
        }
    )


def mix_b(in_chans: int, widths: Widths) -> InceptionMix:
    """Figures 11 and 17, at 17 px."""
    single, reduce, first, second = widths.b
    row, column = Conv(first, (1, 7), padding=(0, 3)), Conv(second, (7, 1), padding=(3, 0))
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(single, 1)),
            "conv7x7": Branch(in_chans, Conv(reduce, 1), row, column),
        }
    )


def reduction_b(in_chans: int, widths: Widths) -> InceptionMix:
    """Figures 12 and 18, from 17 to 8 px."""
    reduce_1, conv_1, reduce_2, conv_2, reduce_3, first, second = widths.reduction_b
    double = Conv(reduce_3, 1), Conv(first, 3, padding=1), Conv(second, 3, stride=2)
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(reduce_1, 1), Conv(conv_1, 3, stride=2)),
            "thin3x3": Branch(in_chans, Conv(reduce_2, 1), Conv(conv_2, 3, stride=2)),
            "double3x3": Branch(in_chans, *double),
            "pool": Branch(in_chans, nn.MaxPool2d(3, stride=2)),
        }
    )


def mix_c(in_chans: int, widths: Widths) -> InceptionMix:
    """Figures 13 and 19, at 8 px."""
    single, reduce, first, second = widths.c
    row, column = Conv(first, (1, 3), padding=(0, 1)), Conv(second, (3, 1), padding=(1, 0))
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(single, 1)),
            "conv3x3": Branch(in_chans, Conv(reduce, 1), row, column),
        }
    )


def mix_first(in_chans: int, scale: Scale) -> InceptionMix:
    """The module that opens v2's stage at 35 px, from 192 to 320 channels; in the release only."""
    pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(96), 1)),
            "conv5x5": Branch(in_chans, Conv(scale(48), 1), Conv(scale(64), 5, padding=2)),
            "double3x3": Branch(
                in_chans, Conv(scale(64), 1), Conv(scale(96), 3, padding=1), Conv(scale(96), 3, padding=1)
            ),
            "pool": Branch(in_chans, pool, Conv(scale(64), 1)),
        }
    )


def make_stages(config: InceptionResNetConfig) -> list[Branch]:
    """The four stages."""
    widths, scale = config.widths, config.scale
    rates = iter(linear_drop_rates(config.drop_path_rate, sum(config.stage_depths)))
    stages = [Branch(scale(64), nn.MaxPool2d(3, stride=2), Conv(scale(80), 1), Conv(scale(192), 3))]
    stem_end = stages[0].out_chans
    if config.version == 1:
        opened = Branch(stem_end, Conv(scale(256), 3, stride=2))
    else:
        opened = Branch(stem_end, nn.MaxPool2d(3, stride=2), mix_first(stem_end, scale))
    for i, make_mix in enumerate((mix_a, mix_b, mix_c)):
        if i > 0:
            end = stages[-1].out_chans
            reduction = (reduction_a, reduction_b)[i - 1]
            opened = Branch(end, reduction(end, widths))
        chans, depth, factor = opened.out_chans, config.stage_depths[i], config.scales[i]
        layers: list[Conv | nn.Module] = [opened]
        for j in range(depth):
            plain = config.plain_last and i == 2 and j == depth - 1
            layers.append(
                InceptionResidual(
                    chans,
                    make_mix(chans, widths),
                    scale=1.0 if plain else factor,
                    act=None if plain else relu,
                    drop_path_rate=next(rates),
                )
            )
        if i == 2 and config.version == 2:
            layers.append(Conv(scale(1536), 1))
        stages.append(Branch(stages[-1].out_chans, *layers))
    return stages


class InceptionResNet(Network[InceptionResNetConfig]):
    """Inception-ResNet.

    Shape: x (B, C, H, W) of at least 75 px -> logits (B, K).

    Shapes in comments: inception_resnet_v1.
    """

    def __init__(self, config: InceptionResNetConfig) -> None:
        super().__init__(config)
        scale = config.scale
        self.stem = Branch(
            config.in_chans, Conv(scale(32), 3, stride=2), Conv(scale(32), 3), Conv(scale(64), 3, padding=1)
        )
        stages = make_stages(config)
        self.stages = nn.ModuleList(stages)
        self.feature_info = FeatureInfo(
            [
                Feature("stem", self.stem.out_chans, 2),
                *(Feature(f"stages.{i}", stage.out_chans, 4 * 2**i) for i, stage in enumerate(stages)),
            ]
        )
        self.num_features = self.head_hidden_size = stages[-1].out_chans
        self.min_input_size = 75
        self.head = ClassifierHead(
            self.num_features, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 64, 147, 147)
        x = tap(self.stages[0](x))  # (B, 192, 71, 71)
        x = tap(self.stages[1](x))  # (B, 256, 35, 35)
        x = tap(self.stages[2](x))  # (B, 896, 17, 17)
        x = tap(self.stages[3](x))  # (B, 1792, 8, 8)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """As TF-slim, where the paper is silent: He's variance, and Xavier's rule for the classifier."""
        init_layers(root, conv=he_uniform_, linear=xavier_uniform_)
        if self.config.zero_init_last:
            for module in root.modules():
                if isinstance(module, InceptionResidual):
                    nn.init.zeros_(module.project.weight)


VARIANTS = {
    "inception_resnet_v1": InceptionResNetConfig(version=1, depths=(5, 10, 5), plain_last=False),
    "inception_resnet_v2": InceptionResNetConfig(version=2, depths=(10, 20, 10), plain_last=True),
}
