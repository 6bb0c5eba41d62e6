"""Inception v3: convolutions factorised, with one side classifier.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015, "Rethinking the Inception Architecture for Computer Vision",
Table 1 and Figures 4 to 10. The paper draws the modules without most widths; those are the authors' release's
(TF-slim), which torchvision and timm repeat.

| stage | px  | layers                                                                        |
|-------|-----|-------------------------------------------------------------------------------|
| stem  | 147 | 3x3, 32, stride 2; 3x3, 32; 3x3, 64 padded                                    |
| 0     | 71  | 3x3 max pool, stride 2; 1x1, 80; 3x3, 192                                     |
| 1     | 35  | 3x3 max pool, stride 2; three modules of 5x5 and two 3x3 (Figure 5)           |
| 2     | 17  | reduction (Figure 10); four modules of 1x7 and 7x1 (Figure 6)                 |
| 3     | 8   | reduction; two modules with branches that end in 1x3 beside 3x1 (Figure 7)    |
| head  | 1   | mean, dropout, 1000 classes                                                   |

Departs from paper: after the first pool Table 1 prints 3x3 convolutions of 80, 192 (stride 2) and 288; the
release has a 1x1 of 80, a 3x3 of 192 and a pool. The release's modules at 35 px have a 5x5 convolution where
Figure 5 has a 3x3.
Departs from paper: the mean pools count the padding, as torchvision and timm; TF-slim's do not.
Departs from paper: maps of other than 17 px are averaged, or repeated, to 17 before the side classifier, so
that any image size works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import AuxHead, Branch, Conv, InceptionMix, he_uniform_
from convatlas.blocks.init import init_layers, xavier_uniform_
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans
from convatlas.models.network import AuxLogits, Config, Feature, FeatureHook, FeatureInfo, Network, identity

MIXED_7X7_CHANS = (128, 160, 160, 192)
"""Channels within the branches of each module of 1x7 and 7x1 convolutions."""

Scale = Callable[[int], int]
"""Channels at the network's width, from those of the paper."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionV3Config(Config):
    """The knobs of Inception v3.

    Args:
        width_mult: how many times as many channels every layer has; multiples of 8. Depth has
            no multiplier: each module has its own widths.
        aux_heads: the side classifier on the last map of 17 px.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    drop_rate: float = 0.2
    width_mult: float = 1.0
    aux_heads: bool = True
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the multiplier.

        Raises:
            ValueError: it is not a number above 0.
        """
        super().__post_init__()
        check_mult("width_mult", self.width_mult)

    def scale(self, chans: int) -> int:
        """Channels at this width."""
        return scale_chans(chans, self.width_mult)

    def build(self) -> InceptionV3:
        """Makes the network."""
        return InceptionV3(self)


def conv1x7(chans: int) -> Conv:
    """One row of seven px."""
    return Conv(chans, (1, 7), padding=(0, 3))


def conv7x1(chans: int) -> Conv:
    """One column of seven px."""
    return Conv(chans, (7, 1), padding=(3, 0))


def mean_pool() -> nn.Module:
    """The mean of 3x3 px, zeros of the padding included."""
    return nn.AvgPool2d(3, stride=1, padding=1)


def mix_5x5(in_chans: int, pool_chans: int, scale: Scale) -> InceptionMix:
    """Figure 5, at 35 px; its first branch of 3x3 convolutions is one of 5x5."""
    double = Conv(scale(64), 1), Conv(scale(96), 3, padding=1), Conv(scale(96), 3, padding=1)
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(64), 1)),
            "conv5x5": Branch(in_chans, Conv(scale(48), 1), Conv(scale(64), 5, padding=2)),
            "double3x3": Branch(in_chans, *double),
            "pool": Branch(in_chans, mean_pool(), Conv(scale(pool_chans), 1)),
        }
    )


def reduce_35(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 10, from 35 to 17 px."""
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(scale(384), 3, stride=2)),
            "double3x3": Branch(
                in_chans, Conv(scale(64), 1), Conv(scale(96), 3, padding=1), Conv(scale(96), 3, stride=2)
            ),
            "pool": Branch(in_chans, nn.MaxPool2d(3, stride=2)),
        }
    )


def mix_7x7(in_chans: int, mid_chans: int, scale: Scale) -> InceptionMix:
    """Figure 6 with n = 7, at 17 px."""
    mid = scale(mid_chans)
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(192), 1)),
            "conv7x7": Branch(in_chans, Conv(mid, 1), conv1x7(mid), conv7x1(scale(192))),
            "double7x7": Branch(
                in_chans, Conv(mid, 1), conv7x1(mid), conv1x7(mid), conv7x1(mid), conv1x7(scale(192))
            ),
            "pool": Branch(in_chans, mean_pool(), Conv(scale(192), 1)),
        }
    )


def reduce_17(in_chans: int, scale: Scale) -> InceptionMix:
    """From 17 to 8 px."""
    return InceptionMix(
        {
            "conv3x3": Branch(in_chans, Conv(scale(192), 1), Conv(scale(320), 3, stride=2)),
            "conv7x7": Branch(
                in_chans,
                Conv(scale(192), 1),
                conv1x7(scale(192)),
                conv7x1(scale(192)),
                Conv(scale(192), 3, stride=2),
            ),
            "pool": Branch(in_chans, nn.MaxPool2d(3, stride=2)),
        }
    )


def split_3x3(in_chans: int, chans: int) -> InceptionMix:
    """A 1x3 convolution beside a 3x1: the two ends of a branch of Figure 7."""
    return InceptionMix(
        {
            "conv1x3": Branch(in_chans, Conv(chans, (1, 3), padding=(0, 1))),
            "conv3x1": Branch(in_chans, Conv(chans, (3, 1), padding=(1, 0))),
        }
    )


def mix_wide(in_chans: int, scale: Scale) -> InceptionMix:
    """Figure 7, at 8 px."""
    return InceptionMix(
        {
            "conv1x1": Branch(in_chans, Conv(scale(320), 1)),
            "conv3x3": Branch(in_chans, Conv(scale(384), 1), split_3x3(scale(384), scale(384))),
            "double3x3": Branch(
                in_chans,
                Conv(scale(448), 1),
                Conv(scale(384), 3, padding=1),
                split_3x3(scale(384), scale(384)),
            ),
            "pool": Branch(in_chans, mean_pool(), Conv(scale(192), 1)),
        }
    )


def make_aux_head(in_chans: int, num_classes: int, scale: Scale) -> AuxHead:
    """Mean of 5x5 px at stride 3, 1x1 and 5x5 convolutions with batch norm, classes."""
    body = nn.Sequential(
        nn.AdaptiveAvgPool2d(17),
        nn.AvgPool2d(5, stride=3),  # (B, 768, 5, 5)
        Branch(in_chans, Conv(scale(128), 1), Conv(scale(768), 5)),  # (B, 768, 1, 1)
        nn.Flatten(),
    )
    return AuxHead(body, scale(768), num_classes)


def make_stages(in_chans: int, scale: Scale) -> list[Branch]:
    """The four stages behind a stem of `in_chans` channels."""
    stages = [Branch(in_chans, nn.MaxPool2d(3, stride=2), Conv(scale(80), 1), Conv(scale(192), 3))]
    kinds: list[list[Callable[[int], InceptionMix]]] = [
        [partial(mix_5x5, pool_chans=pool_chans, scale=scale) for pool_chans in (32, 64, 64)],
        [
            partial(reduce_35, scale=scale),
            *(partial(mix_7x7, mid_chans=mid_chans, scale=scale) for mid_chans in MIXED_7X7_CHANS),
        ],
        [partial(reduce_17, scale=scale), partial(mix_wide, scale=scale), partial(mix_wide, scale=scale)],
    ]
    for i, makers in enumerate(kinds):
        chans = stages[-1].out_chans
        layers: list[nn.Module] = [nn.MaxPool2d(3, stride=2)] if i == 0 else []
        for make in makers:
            module = make(chans)
            layers.append(module)
            chans = module.out_chans
        stages.append(Branch(stages[-1].out_chans, *layers))
    return stages


class InceptionV3(Network[InceptionV3Config]):
    """Inception v3.

    Shape: x (B, C, H, W) of at least 75 px -> logits (B, K).

    Shapes in comments: inception_v3.
    """

    def __init__(self, config: InceptionV3Config) -> None:
        super().__init__(config)
        scale = config.scale
        self.stem = Branch(
            config.in_chans, Conv(scale(32), 3, stride=2), Conv(scale(32), 3), Conv(scale(64), 3, padding=1)
        )
        stages = make_stages(self.stem.out_chans, scale)
        self.stages = nn.ModuleList(stages)
        ends = [stage.out_chans for stage in stages]
        heads = [make_aux_head(ends[2], config.num_classes, scale)] if config.aux_heads else []
        self.aux_heads = nn.ModuleList(heads)
        self.feature_info = FeatureInfo(
            [
                Feature("stem", self.stem.out_chans, 2),
                *(Feature(f"stages.{i}", chans, 4 * 2**i) for i, chans in enumerate(ends)),
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
        x = tap(self.stages[0](x))  # (B, 192, 71, 71)
        x = tap(self.stages[1](x))  # (B, 288, 35, 35)
        x = tap(self.stages[2](x))  # (B, 768, 17, 17)
        x = tap(self.stages[3](x))  # (B, 2048, 8, 8)
        return x

    def forward_aux(self, x: Tensor) -> AuxLogits:
        """Logits of the end, and of the side classifier on the map of stride 16.

        Raises:
            ValueError: as `forward`.
        """
        maps = self.forward_stages(x)
        return AuxLogits(self.forward_head(maps[-1]), tuple(head(maps[3]) for head in self.aux_heads))

    def init_weights(self, root: nn.Module) -> None:
        """As TF-slim, where the paper is silent: He's variance, Xavier's rule for the classifier.

        The side classifier's last two layers begin small, N(0, 0.01^2) and N(0, 0.001^2).
        """
        init_layers(root, conv=he_uniform_, linear=xavier_uniform_)
        small = {}
        for head in self.aux_heads:
            small[head.get_submodule("body.2.1.conv")] = 0.01
            small[head.get_submodule("fc")] = 0.001
        for layer in root.modules():
            if layer in small and isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=small[layer])


VARIANTS = {"inception_v3": InceptionV3Config()}
