"""GoogLeNet: the network of the paper, the one without bottlenecks, and torchvision's.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke and Rabinovich 2014, "Going Deeper with
Convolutions", Table 1 (here `ROWS`), Figure 2 (the modules) and Section 5 (the side classifiers).

| stage | px  | layers                                                             |
|-------|-----|--------------------------------------------------------------------|
| stem  | 112 | 7x7, 64, stride 2                                                  |
| 0     | 56  | 3x3 max pool, stride 2; 1x1, 64; 3x3, 192; normalisation around    |
| 1     | 28  | 3x3 max pool, stride 2; modules 3a, 3b                             |
| 2-4   | 14  | 3x3 max pool, stride 2; modules 4a / 4b, 4c, 4d / 4e               |
| 5     | 7   | 3x3 max pool, stride 2; modules 5a, 5b                             |
| head  | 1   | mean, dropout 40 %, 1000 classes                                   |

The five 4x modules are three stages, because the side classifiers hang on 4a and 4d.

`googlenet_naive` is what CS231n derives the bottlenecks from (Figure 2a of the paper): in each module the
1x1, 3x3 and 5x5 convolutions see the whole input, and the pool's channels are concatenated unprojected, so
that a module of C channels with branches of a, b, c makes C + a + b + c. The branch widths, and all that is
not a module, are GoogLeNet's: 192 -> 416 -> 832 (3b) -> 1280 -> 1728 -> 2176 -> 2640 -> 3344 (4e) -> 4048 ->
4944 (5b).

Departs from paper: `googlenet` takes what is not printed from its Caffe replica (BVLC): the constants of
local response normalisation, poolings that round up, initial weights and biases.
Departs from paper: maps of other than 14 px are averaged, or repeated, to 14 before a side classifier, so
that any image size works.
Departs from paper: `googlenet_tv` has batch norm and no local response normalisation, 3x3 convolutions in the
5x5 branch, a 2x2 pool before 5a, 20 % dropout, and side classifiers that average to 4 px whatever the size.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, Norm, relu
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import AuxHead, Branch, Conv, InceptionMix, batch_norm
from convatlas.blocks.init import init_layers
from convatlas.blocks.norm import LocalResponseNorm
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans
from convatlas.models.network import (
    AuxLogits,
    Config,
    Feature,
    FeatureHook,
    FeatureInfo,
    Network,
    check_input,
    identity,
)


class Row(NamedTuple):
    """Channels of one module, in the order of Table 1's columns."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    pool_project: int


ROWS = {
    "3a": Row(64, 96, 128, 16, 32, 32),
    "3b": Row(128, 128, 192, 32, 96, 64),
    "4a": Row(192, 96, 208, 16, 48, 64),
    "4b": Row(160, 112, 224, 24, 64, 64),
    "4c": Row(128, 128, 256, 24, 64, 64),
    "4d": Row(112, 144, 288, 32, 64, 64),
    "4e": Row(256, 160, 320, 32, 128, 128),
    "5a": Row(256, 160, 320, 32, 128, 128),
    "5b": Row(384, 192, 384, 48, 128, 128),
}
STAGES = ("3a", "3b"), ("4a",), ("4b", "4c", "4d"), ("4e",), ("5a", "5b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig(Config):
    """The knobs of GoogLeNet.

    Args:
        width_mult: how many times as many channels every layer has; multiples of 8. Depth has
            no multiplier: each module has its own widths.
        bottlenecks: 1x1 convolutions before the 3x3 and 5x5 and after the pool; else the naive module.
        torchvision: the network that torchvision calls GoogLeNet.
        aux_heads: the two side classifiers.
        aux_drop_rate: dropout in them.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    drop_rate: float = 0.4
    width_mult: float = 1.0
    bottlenecks: bool = True
    torchvision: bool = False
    aux_heads: bool = True
    aux_drop_rate: float = 0.7
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

    @property
    def norm(self) -> Norm | None:
        """Makes the normalisation of each convolution."""
        return batch_norm if self.torchvision else None

    def build(self) -> GoogLeNet:
        """Makes the network."""
        return GoogLeNet(self)


def make_module(in_chans: int, row: Row, config: GoogLeNetConfig) -> InceptionMix:
    """A module of Figure 2: (a) without bottlenecks, (b) with them."""
    # torchvision's branch of 5x5 convolutions has 3x3 ones (pytorch/vision#906).
    conv5x5 = Conv(row.conv5x5, 3, padding=1) if config.torchvision else Conv(row.conv5x5, 5, padding=2)
    conv3x3 = Conv(row.conv3x3, 3, padding=1)
    pool = nn.MaxPool2d(3, stride=1, padding=1)
    make = partial(Branch, in_chans, norm=config.norm)
    if not config.bottlenecks:
        return InceptionMix(
            {
                "conv1x1": make(Conv(row.conv1x1, 1)),
                "conv3x3": make(conv3x3),
                "conv5x5": make(conv5x5),
                "pool": make(pool),
            }
        )
    return InceptionMix(
        {
            "conv1x1": make(Conv(row.conv1x1, 1)),
            "conv3x3": make(Conv(row.reduce3x3, 1), conv3x3),
            "conv5x5": make(Conv(row.reduce5x5, 1), conv5x5),
            "pool": make(pool, Conv(row.pool_project, 1)),
        }
    )


def make_stage(in_chans: int, names: tuple[str, ...], config: GoogLeNetConfig) -> Branch:
    """The modules called `names`, behind a pool where they open a resolution."""
    layers: list[nn.Module] = []
    if names[0].endswith("a"):
        size = 2 if config.torchvision and names[0] == "5a" else 3
        layers.append(nn.MaxPool2d(size, stride=2, ceil_mode=True))
    chans = in_chans
    for name in names:
        module = make_module(chans, Row(*map(config.scale, ROWS[name])), config)
        layers.append(module)
        chans = module.out_chans
    return Branch(in_chans, *layers)


def make_aux_head(in_chans: int, config: GoogLeNetConfig) -> AuxHead:
    """A side classifier: mean of 5x5 px at stride 3, 1x1 convolution, 1,024 units, dropout, classes."""
    if config.torchvision:
        pool: nn.Module = nn.AdaptiveAvgPool2d(4)
    else:
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(14), nn.AvgPool2d(5, stride=3))  # (B, C, 4, 4)
    narrow, units = config.scale(128), config.scale(1024)
    body = nn.Sequential(
        pool,
        ConvNormAct(in_chans, narrow, 1, norm=config.norm),
        nn.Flatten(),
        nn.Linear(narrow * 4 * 4, units),
        relu(),
        nn.Dropout(config.aux_drop_rate),
    )
    return AuxHead(body, units, config.num_classes)


def local_response_norm() -> nn.Module:
    """Normalisation over five channels, with the constants of the Caffe replica."""
    return LocalResponseNorm(5, alpha=1e-4 / 5, beta=0.75, k=1.0)  # Caffe's alpha is five times ours.


def caffe_xavier_uniform_(weight: Tensor) -> None:
    """U(-a, a) of variance 1 / fan_in: Xavier's rule as Caffe has it.

    Source: BVLC GoogLeNet, `weight_filler`.
    """
    bound = math.sqrt(3.0 / weight[0].numel())
    nn.init.uniform_(weight, -bound, bound)


def small_normal_(weight: Tensor) -> None:
    """N(0, 0.01^2): torchvision's rule, whose truncation at 2.0 never cuts."""
    nn.init.normal_(weight, std=0.01)


class GoogLeNet(Network[GoogLeNetConfig]):
    """GoogLeNet.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: googlenet.
    """

    def __init__(self, config: GoogLeNetConfig) -> None:
        super().__init__(config)
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        stem_chans = config.scale(64)
        layers: list[Conv | nn.Module] = [Conv(stem_chans, 1), Conv(config.scale(192), 3, padding=1)]
        if not config.torchvision:
            layers = [local_response_norm(), *layers, local_response_norm()]
        self.stem = ConvNormAct(config.in_chans, stem_chans, 7, stride=2, padding=3, norm=config.norm)
        self.stages = nn.ModuleList([Branch(stem_chans, pool, *layers, norm=config.norm)])
        ends = [config.scale(192)]
        for names in STAGES:
            stage = make_stage(ends[-1], names, config)
            self.stages.append(stage)
            ends.append(stage.out_chans)
        hung_on = ends[2:4] if config.aux_heads else []
        self.aux_heads = nn.ModuleList(make_aux_head(chans, config) for chans in hung_on)
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, 2),
                Feature("stages.0", ends[0], 4),
                Feature("stages.1", ends[1], 8),
                Feature("stages.4", ends[4], 16),
                Feature("stages.5", ends[5], 32),
            ]
        )
        self.num_features = self.head_hidden_size = ends[-1]
        self.min_input_size = 15 if config.torchvision else 31
        self.head = ClassifierHead(
            ends[-1], config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity, aux_tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages; `aux_tap` sees the maps that the side classifiers hang on."""
        x = tap(self.stem(x))  # (B, 64, 112, 112)
        x = tap(self.stages[0](x))  # (B, 192, 56, 56)
        x = tap(self.stages[1](x))  # (B, 480, 28, 28)
        x = aux_tap(self.stages[2](x))  # (B, 512, 14, 14)
        x = aux_tap(self.stages[3](x))  # (B, 528, 14, 14)
        x = tap(self.stages[4](x))  # (B, 832, 14, 14)
        x = tap(self.stages[5](x))  # (B, 1024, 7, 7)
        return x

    def forward_aux(self, x: Tensor) -> AuxLogits:
        """Logits of the end, and of the side classifiers on 4a and 4d.

        The paper adds 0.3 of each side classifier's loss.

        Raises:
            ValueError: as `forward`.
        """
        check_input(x, self.name or type(self).__name__, self.config.in_chans, self.min_input_size)
        maps: list[Tensor] = []

        def keep(feature_map: Tensor) -> Tensor:
            maps.append(feature_map)
            return feature_map

        main = self.forward_head(self.features(x, aux_tap=keep))
        return AuxLogits(main, tuple(head(m) for head, m in zip(self.aux_heads, maps, strict=False)))

    def init_weights(self, root: nn.Module) -> None:
        """As the Caffe replica, with biases of 0.2 before activations; or as torchvision, N(0, 0.01^2)."""
        if self.config.torchvision:
            init_layers(root, conv=small_normal_, linear=small_normal_)
            return
        init_layers(root, conv=caffe_xavier_uniform_, linear=caffe_xavier_uniform_)
        classifiers = [self.head.get_submodule("fc"), *(h.get_submodule("fc") for h in self.aux_heads)]
        for layer in root.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and not any(layer is fc for fc in classifiers):
                nn.init.constant_(layer.get_parameter("bias"), 0.2)


VARIANTS = {
    "googlenet": GoogLeNetConfig(),
    "googlenet_naive": GoogLeNetConfig(bottlenecks=False),
    "googlenet_tv": GoogLeNetConfig(torchvision=True, drop_rate=0.2),
}
