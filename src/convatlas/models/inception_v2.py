"""BN-Inception, which later papers and libraries call Inception v2; and the same with gates.

Ioffe and Szegedy 2015, "Batch Normalization", Section 4.2 and the table of the appendix (Figure 5), here
`ROWS`. Hu et al. 2018, "Squeeze-and-Excitation Networks", Section 3.1, for the gate after each module.

| stage | px  | layers                                                              |
|-------|-----|---------------------------------------------------------------------|
| stem  | 112 | 7x7, 64, stride 2                                                   |
| 0     | 56  | 3x3 max pool, stride 2; 1x1, 64; 3x3, 192                           |
| 1     | 28  | 3x3 max pool, stride 2; modules 3a, 3b                              |
| 2     | 14  | module 3c, stride 2; modules 4a, 4b, 4c, 4d                         |
| 3     | 7   | module 4e, stride 2; modules 5a, 5b                                 |
| head  | 1   | mean, 1000 classes                                                  |

A module is GoogLeNet's with two 3x3 convolutions for the 5x5. The modules that stride have no 1x1 branch, and
their pool passes its input's channels through.

The paper's table contradicts itself: the branches of 4c, 4d and 4e add up to 608, 608 and 1056 channels, and
it prints 576, 576 and 1024. The networks follow the branches, as the public Caffe model, its ports and SENet
do; TF-slim follows the sums, with 96 channels after the pools of 4c and 4d (`tf_slim_widths=True`).

Departs from paper: the first convolution is full, as in the public Caffe model; the paper's is separable with
a depth multiplier of 8 (`separable_stem=True`).
Departs from paper: `inception_v2` has biases in its convolutions, as the public Caffe model; normalisation
cancels them, so that the paper drops them (Section 3.2), as does `conv_bias=False`.
Departs from paper: the pool of a module that strides sees one empty px more on the right and below, which
changes nothing for even sizes and lets odd sizes through.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import Branch, Conv, InceptionMix, he_uniform_
from convatlas.blocks.init import init_layers, xavier_uniform_
from convatlas.blocks.separable import check_mult
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.multipliers import scale_chans
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity


class Row(NamedTuple):
    """Channels of one module, in the order of the table's columns; no 1x1 branch where it strides."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce_double3x3: int
    double3x3: int
    pool_project: int


ROWS = {
    "3a": Row(64, 64, 64, 64, 96, 32),
    "3b": Row(64, 64, 96, 64, 96, 64),
    "3c": Row(0, 128, 160, 64, 96, 0),
    "4a": Row(224, 64, 96, 96, 128, 128),
    "4b": Row(192, 96, 128, 96, 128, 128),
    "4c": Row(160, 128, 160, 128, 160, 128),
    "4d": Row(96, 128, 192, 160, 192, 128),
    "4e": Row(0, 128, 192, 192, 256, 0),
    "5a": Row(352, 192, 320, 160, 224, 128),
    "5b": Row(352, 192, 320, 192, 224, 128),
}
STAGES = ("3a", "3b"), ("3c", "4a", "4b", "4c", "4d"), ("4e", "5a", "5b")
TF_SLIM_POOL_PROJECT = {"4c": 96, "4d": 96}
FIRST_DEPTH_MULT = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionV2Config(Config):
    """The knobs of BN-Inception.

    Args:
        width_mult: how many times as many channels every layer has; multiples of 8. Depth has
            no multiplier: each module has its own widths.
        separable_stem: the paper's first convolution, in place of the Caffe model's.
        tf_slim_widths: 96 channels after the pools of 4c and 4d, not the 128 that the table prints.
        conv_bias: biases in the convolutions, which the normalisation cancels.
        squeeze_ratio: a gate after each module, with 1 / `squeeze_ratio` of its channels; 0 for none.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    width_mult: float = 1.0
    separable_stem: bool = False
    tf_slim_widths: bool = False
    conv_bias: bool = True
    squeeze_ratio: int = 0
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the multiplier and the ratio.

        Raises:
            ValueError: the multiplier is not above 0, or the ratio is not a whole number of at least 0.
        """
        super().__post_init__()
        check_count("squeeze_ratio", self.squeeze_ratio, least=0)
        check_mult("width_mult", self.width_mult)

    def scale(self, chans: int) -> int:
        """Channels at this width."""
        return scale_chans(chans, self.width_mult)

    def build(self) -> InceptionV2:
        """Makes the network."""
        return InceptionV2(self)


def make_module(in_chans: int, name: str, config: InceptionV2Config) -> Branch:
    """The module called `name` in the table, with its gate if there are any."""
    row = Row(*map(config.scale, ROWS[name]))
    make = partial(Branch, in_chans, norm=nn.BatchNorm2d, bias=config.conv_bias)
    stride = 1 if row.conv1x1 else 2
    conv3x3 = Conv(row.conv3x3, 3, stride=stride, padding=1)
    doubles = Conv(row.double3x3, 3, padding=1), Conv(row.double3x3, 3, stride=stride, padding=1)
    branches = {
        "conv3x3": make(Conv(row.reduce3x3, 1), conv3x3),
        "double3x3": make(Conv(row.reduce_double3x3, 1), *doubles),
    }
    if stride == 2:
        # Zeros are harmless here: no activation is below them.
        pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, stride=2, ceil_mode=True))
        mix = InceptionMix({**branches, "pool": make(pool)})
    else:
        pool = nn.MaxPool2d(3, stride=1, padding=1) if name == "5b" else nn.AvgPool2d(3, stride=1, padding=1)
        narrow = TF_SLIM_POOL_PROJECT if config.tf_slim_widths else {}
        project = Conv(config.scale(narrow[name]) if name in narrow else row.pool_project, 1)
        first = {"conv1x1": make(Conv(row.conv1x1, 1))}
        mix = InceptionMix({**first, **branches, "pool": make(pool, project)})
    if not config.squeeze_ratio:
        return Branch(in_chans, mix)
    return Branch(in_chans, mix, SqueezeExcite(mix.out_chans, max(1, mix.out_chans // config.squeeze_ratio)))


def make_stem(config: InceptionV2Config) -> nn.Module:
    """The first convolution: separable in the paper, full in the Caffe model."""
    chans, out_chans = config.in_chans, config.scale(64)
    if not config.separable_stem:
        return ConvNormAct(chans, out_chans, 7, stride=2, padding=3, bias=config.conv_bias)
    wide = chans * FIRST_DEPTH_MULT
    depthwise = nn.Conv2d(chans, wide, 7, stride=2, padding=3, groups=chans, bias=False)
    return nn.Sequential(depthwise, ConvNormAct(wide, out_chans, 1, bias=config.conv_bias))


class InceptionV2(Network[InceptionV2Config]):
    """BN-Inception.

    Shape: x (B, C, H, W) of at least 7 px -> logits (B, K).

    Shapes in comments: inception_v2.
    """

    def __init__(self, config: InceptionV2Config) -> None:
        super().__init__(config)
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        stem_chans = config.scale(64)
        convs = Conv(stem_chans, 1), Conv(config.scale(192), 3, padding=1)
        self.stem = make_stem(config)
        self.stages = nn.ModuleList(
            [Branch(stem_chans, pool, *convs, norm=nn.BatchNorm2d, bias=config.conv_bias)]
        )
        ends = [config.scale(192)]
        for names in STAGES:
            layers: list[nn.Module] = [nn.MaxPool2d(3, stride=2, ceil_mode=True)] if names[0] == "3a" else []
            chans = ends[-1]
            for name in names:
                module = make_module(chans, name, config)
                layers.append(module)
                chans = module.out_chans
            self.stages.append(nn.Sequential(*layers))
            ends.append(chans)
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, 2),
                *(Feature(f"stages.{i}", chans, 4 * 2**i) for i, chans in enumerate(ends)),
            ]
        )
        self.num_features = self.head_hidden_size = ends[-1]
        self.min_input_size = 7
        self.head = ClassifierHead(
            ends[-1], config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 64, 112, 112)
        x = tap(self.stages[0](x))  # (B, 192, 56, 56)
        x = tap(self.stages[1](x))  # (B, 320, 28, 28)
        x = tap(self.stages[2](x))  # (B, 608, 14, 14)
        x = tap(self.stages[3](x))  # (B, 1024, 7, 7)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """As TF-slim, where the paper is silent: He's variance, and Xavier's rule for the classifier."""
        init_layers(root, conv=he_uniform_, linear=xavier_uniform_)


VARIANTS = {
    "inception_v2": InceptionV2Config(),
    "se_inception_v2": InceptionV2Config(squeeze_ratio=16, conv_bias=False),
}
