"""Inception v4: pure Inception, made uniform.

Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", Figures 3 to 9; the order of 1x7 and 7x1 is that of the authors' release (TF-slim).

| stage | px  | layers                                                                |
|-------|-----|-----------------------------------------------------------------------|
| stem  | 147 | 3x3, 32, stride 2; 3x3, 32; 3x3, 64 padded (Figure 3)                 |
| 0     | 73  | pool beside 3x3, 96, both of stride 2 (Figure 3)                      |
| 1     | 35  | the rest of Figure 3; Inception-A x4 (Figure 4)                       |
| 2     | 17  | Reduction-A (Figure 7); Inception-B x7 (Figure 5)                     |
| 3     | 8   | Reduction-B (Figure 8); Inception-C x3 (Figure 6)                     |
| head  | 1   | mean, dropout 20 %, 1000 classes (Figure 9)                           |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import Branch, Conv, InceptionMix, he_uniform_
from convatlas.blocks.init import init_layers, xavier_uniform_
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity

Scale = Callable[[int], int]
"""Channels at the network's width, from those of the paper."""


def check_three(name: str, value: object) -> None:
    """Refuses what is not a tuple of three, one for each kind of module.

    Raises:
        ValueError: if a value is not as described above.
    """
    if not isinstance(value, tuple) or len(value) != 3:
        raise ValueError(f"`{name}`={value!r}; expected a tuple of 3 numbers, for modules A, B and C")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionV4Config(Config):
    """The knobs of Inception v4.

    Args:
        depths: number of Inception-A, -B and -C modules.
        width_mult: how many times as many channels every layer has; multiples of 8.
        depth_mult: how many times as many modules of each kind there are; rounded to the nearest number.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    drop_rate: float = 0.2
    depths: tuple[int, int, int] = (4, 7, 3)
    width_mult: float = 1.0
    depth_mult: float = 1.0
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the depths.

        Raises:
            ValueError: there are not three, or one is not a whole number of at least 0.
        """
        super().__post_init__()
        check_three("depths", self.depths)
        for depth in self.depths:
            check_count("depths", depth, least=0)
        check_mult("width_mult", self.width_mult)
        check_mult("depth_mult", self.depth_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Modules of each kind."""
        return tuple(scale_depth(depth, self.depth_mult) for depth in self.depths)

    def scale(self, chans: int) -> int:
        """Channels at this width."""
        return scale_chans(chans, self.width_mult)

    def build(self) -> InceptionV4:
        """Makes the network."""
        return InceptionV4(self)


def conv1x7(chans: int) -> Conv:
    """One row of seven px."""
    return Conv(chans, (1, 7), padding=(0, 3))


def conv7x1(chans: int) -> Conv:
    """One column of seven px."""
    return Conv(chans, (7, 1), padding=(3, 0))


def mean_pool() -> nn.Module:
    """The mean of the px of 3x3 that are there."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def max_pool() -> nn.Module:
    """The maximum of 3x3 px, stride 2."""
    return nn.MaxPool2d(3, stride=2)


def stem_mix_1(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 3, first fork, from 147 to 73 px."""
    return InceptionMix(
        {"pool": Branch(in_chans, max_pool()), "conv3x3": Branch(in_chans, Conv(scale(96), 3, stride=2))}
    )


def stem_mix_2(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 3, second fork, from 73 to 71 px."""
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(scale(64), 1), Conv(scale(96), 3)),
            "conv7x7": Branch(
                in_chans, Conv(scale(64), 1), conv1x7(scale(64)), conv7x1(scale(64)), Conv(scale(96), 3)
            ),
        }
    )


def stem_mix_3(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 3, third fork, from 71 to 35 px."""
    return InceptionMix(
        {"conv3x3": Branch(in_chans, Conv(scale(192), 3, stride=2)), "pool": Branch(in_chans, max_pool())}
    )


def inception_a(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 4, at 35 px."""
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(96), 1)),
            "conv3x3": Branch(in_chans, Conv(scale(64), 1), Conv(scale(96), 3, padding=1)),
            "double3x3": Branch(
                in_chans, Conv(scale(64), 1), Conv(scale(96), 3, padding=1), Conv(scale(96), 3, padding=1)
            ),
            "pool": Branch(in_chans, mean_pool(), Conv(scale(96), 1)),
        }
    )


def reduction_a(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 7 with k, l, m, n = 192, 224, 256, 384 (Table 1), from 35 to 17 px."""
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(scale(384), 3, stride=2)),
            "double3x3": Branch(
                in_chans, Conv(scale(192), 1), Conv(scale(224), 3, padding=1), Conv(scale(256), 3, stride=2)
            ),
            "pool": Branch(in_chans, max_pool()),
        }
    )


def inception_b(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 5, at 17 px."""
    double = (
        Conv(scale(192), 1),
        conv7x1(scale(192)),
        conv1x7(scale(224)),
        conv7x1(scale(224)),
        conv1x7(scale(256)),
    )
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(384), 1)),
            "conv7x7": Branch(in_chans, Conv(scale(192), 1), conv1x7(scale(224)), conv7x1(scale(256))),
            "double7x7": Branch(in_chans, *double),
            "pool": Branch(in_chans, mean_pool(), Conv(scale(128), 1)),
        }
    )


def reduction_b(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 8, from 17 to 8 px."""
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(scale(192), 1), Conv(scale(192), 3, stride=2)),
            "conv7x7": Branch(
                in_chans,
                Conv(scale(256), 1),
                conv1x7(scale(256)),
                conv7x1(scale(320)),
                Conv(scale(320), 3, stride=2),
            ),
            "pool": Branch(in_chans, max_pool()),
        }
    )


def split_3x3(in_chans: int, scale: Scale) -> InceptionMix:
    """A 1x3 convolution beside a 3x1: the two ends of a branch of Figure 6."""
    return InceptionMix(
        {
            "conv1x3": Branch(in_chans, Conv(scale(256), (1, 3), padding=(0, 1))),
            "conv3x1": Branch(in_chans, Conv(scale(256), (3, 1), padding=(1, 0))),
        }
    )


def inception_c(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 6, at 8 px."""
    column, row = Conv(scale(448), (3, 1), padding=(1, 0)), Conv(scale(512), (1, 3), padding=(0, 1))
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(256), 1)),
            "conv3x3": Branch(in_chans, Conv(scale(384), 1), split_3x3(scale(384), scale)),
            "double3x3": Branch(in_chans, Conv(scale(384), 1), column, row, split_3x3(scale(512), scale)),
            "pool": Branch(in_chans, mean_pool(), Conv(scale(256), 1)),
        }
    )


def chain(in_chans: int, makers: Sequence[Callable[[int, Scale], InceptionMix]], scale: Scale) -> Branch:
    """Modules one behind the other, each made for the channels of the one before."""
    modules: list[InceptionMix] = []
    chans = in_chans
    for make in makers:
        modules.append(make(chans, scale))
        chans = modules[-1].out_chans
    return Branch(in_chans, *modules)


class InceptionV4(Network[InceptionV4Config]):
    """Inception v4.

    Shape: x (B, C, H, W) of at least 75 px -> logits (B, K).

    Shapes in comments: inception_v4.
    """

    def __init__(self, config: InceptionV4Config) -> None:
        super().__init__(config)
        scale = config.scale
        self.stem = Branch(
            config.in_chans, Conv(scale(32), 3, stride=2), Conv(scale(32), 3), Conv(scale(64), 3, padding=1)
        )
        num_a, num_b, num_c = config.stage_depths
        fork = stem_mix_1(self.stem.out_chans, scale)
        stages: list[InceptionMix | Branch] = [fork]
        for makers in (
            [stem_mix_2, stem_mix_3, *[inception_a] * num_a],
            [reduction_a, *[inception_b] * num_b],
            [reduction_b, *[inception_c] * num_c],
        ):
            stages.append(chain(stages[-1].out_chans, makers, scale))
        self.stages = nn.ModuleList(stages)
        ends = [stage.out_chans for stage in stages]
        self.feature_info = FeatureInfo(
            [
                Feature("stem", self.stem.out_chans, 2),
                *(Feature(f"stages.{i}", end, 4 * 2**i) for i, end in enumerate(ends)),
            ]
        )
        self.num_features = self.head_hidden_size = ends[-1]
        self.min_input_size = 75
        self.head = ClassifierHead(
            ends[-1], config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 64, 147, 147)
        x = tap(self.stages[0](x))  # (B, 160, 73, 73)
        x = tap(self.stages[1](x))  # (B, 384, 35, 35)
        x = tap(self.stages[2](x))  # (B, 1024, 17, 17)
        x = tap(self.stages[3](x))  # (B, 1536, 8, 8)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """As TF-slim, where the paper is silent: He's variance, and Xavier's rule for the classifier."""
        init_layers(root, conv=he_uniform_, linear=xavier_uniform_)


VARIANTS = {"inception_v4": InceptionV4Config()}
