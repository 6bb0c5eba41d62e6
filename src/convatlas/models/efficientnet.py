"""EfficientNet, and EfficientNet-Lite.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", Table 1 (B0).

| stage | px  | blocks of B0: MBConv's expansion and kernel, channels, repeats |
|-------|-----|----------------------------------------------------------------|
| stem  | 112 | 3x3, 32, stride 2                                              |
| 0     | 112 | MBConv1 3x3, 16, x1                                            |
| 1     | 56  | MBConv6 3x3, 24, x2                                            |
| 2     | 28  | MBConv6 5x5, 40, x2                                            |
| 3     | 14  | MBConv6 3x3, 80, x3                                            |
| 4     | 14  | MBConv6 5x5, 112, x3                                           |
| 5     | 7   | MBConv6 5x5, 192, x4                                           |
| 6     | 7   | MBConv6 3x3, 320, x1                                           |
| last  | 7   | 1x1, 1280                                                      |
| head  | 1   | mean, 1000 classes                                             |

px are a stage's output here; the paper's table prints its input.
B1 to B7 multiply channels and repeats by the code's table (not by powers of the paper's alpha and beta).
Lite (the authors' repository, 2020; no paper) has no gates and ReLU6, and scales neither the stem, nor the
last convolution, nor the repeats of the first and last stage.

The authors' code pads as TensorFlow's "SAME" and has an epsilon of 1e-3 in its norms. Weights fit only a
network that pads and normalises as it was trained: `same_padding` and `norm_eps` say how. Lite is as the
authors' code; B0 to B7 are, by default, as torchvision's.

Departs from paper: B0 to B7 pad symmetrically, and B0 to B4 have an epsilon of 1e-5.
`same_padding=True, norm_eps=1e-3, norm_momentum=0.01` are the authors' (and timm's `tf_efficientnet_*`).
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu6, silu
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers
from convatlas.blocks.inverted import InvertedResidual, SamePad, zero_last_projections
from convatlas.blocks.separable import check_mult, round_chans
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_rate, identity

STEM_CHANS = 32
LAST_CHANS = 1280
EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
KERNELS = (3, 3, 5, 3, 5, 5, 3)
WIDTHS = (16, 24, 40, 80, 112, 192, 320)
DEPTHS = (1, 2, 2, 3, 3, 4, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Table 1, stage by stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(Config):
    """The knobs of EfficientNet.

    Args:
        width_mult: how many times as many channels the layers have; rounded to multiples of 8.
        depth_mult: how many times as many blocks each stage has; rounded up.
        lite: no gates, ReLU6, and ends that do not scale.
        same_padding: pad convolutions that stride as TensorFlow's "SAME", not symmetrically.
        norm_eps: what norms add to the variance.
        norm_momentum: weight of a new batch in the norms' running statistics.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
        zero_init_last: begin with every residual block as the identity.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    width_mult: float = 1.0
    depth_mult: float = 1.0
    lite: bool = False
    same_padding: bool = False
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    drop_rate: float = 0.2
    drop_path_rate: float = 0.2
    zero_init_last: bool = False
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the multipliers and what the norms are given.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_mult("width_mult", self.width_mult)
        check_mult("depth_mult", self.depth_mult)
        check_mult("norm_eps", self.norm_eps)
        check_rate("norm_momentum", self.norm_momentum)

    @property
    def ends_width_mult(self) -> float:
        """The multiplier of the stem's and the last convolution's channels."""
        return 1.0 if self.lite else self.width_mult

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        depths = [math.ceil(depth * self.depth_mult) for depth in DEPTHS]
        return (DEPTHS[0], *depths[1:-1], DEPTHS[-1]) if self.lite else tuple(depths)

    def build(self) -> EfficientNet:
        """Makes the network."""
        return EfficientNet(self)


def make_stages(config: EfficientNetConfig, chans: int) -> tuple[nn.ModuleList, list[int]]:
    """The seven stages behind a stem of `chans` channels, and the channels of each."""
    stages = nn.ModuleList()
    widths = [round_chans(width * config.width_mult) for width in WIDTHS]
    rates = iter(linear_drop_rates(config.drop_path_rate, sum(config.stage_depths)))
    table = zip(EXPANSIONS, KERNELS, widths, config.stage_depths, STRIDES, strict=True)
    for expansion, kernel_size, width, depth, stride in table:
        blocks: list[nn.Module] = []
        for j in range(depth):
            # The gate narrows to a quarter of what enters the block, not of what it is expanded to.
            squeeze = partial(SqueezeExcite, mid_chans=max(1, chans // 4), act=silu)
            block = InvertedResidual(
                chans,
                width,
                kernel_size,
                stride=stride if j == 0 else 1,
                expansion=expansion,
                norm=partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=config.norm_momentum),
                act=relu6 if config.lite else silu,
                squeeze=None if config.lite else squeeze,
                same_padding=config.same_padding,
                drop_path_rate=next(rates),
            )
            blocks.append(block)
            chans = width
        stages.append(nn.Sequential(*blocks))
    return stages, widths


class EfficientNet(Network[EfficientNetConfig]):
    """A stem, seven stages of inverted residuals and a last 1x1 convolution.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: efficientnet_b0.
    """

    min_input_size = 1

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=config.norm_momentum)
        act = relu6 if config.lite else silu
        stem_chans = round_chans(STEM_CHANS * config.ends_width_mult)
        last_chans = round_chans(LAST_CHANS * config.ends_width_mult)
        self.pad = SamePad(3, 2) if config.same_padding else nn.Identity()
        padding = 0 if config.same_padding else 1
        self.stem = ConvNormAct(config.in_chans, stem_chans, 3, stride=2, padding=padding, norm=norm, act=act)
        self.stages, chans = make_stages(config, stem_chans)
        self.last = ConvNormAct(chans[-1], last_chans, 1, norm=norm, act=act)
        strides = [2 * math.prod(STRIDES[: i + 1]) for i in range(len(STRIDES))]
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, 2),
                *(Feature(f"stages.{i}", chans[i], strides[i]) for i in range(len(chans))),
                Feature("last", last_chans, strides[-1]),
            ]
        )
        self.num_features = self.head_hidden_size = last_chans
        self.head = ClassifierHead(
            last_chans, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs everything before the pooling."""
        x = tap(self.stem(self.pad(x)))  # (B, 32, H/2, W/2)
        x = tap(self.stages[0](x))  # (B, 16, H/2, W/2)
        x = tap(self.stages[1](x))  # (B, 24, H/4, W/4)
        x = tap(self.stages[2](x))  # (B, 40, H/8, W/8)
        x = tap(self.stages[3](x))  # (B, 80, H/16, W/16)
        x = tap(self.stages[4](x))  # (B, 112, H/16, W/16)
        x = tap(self.stages[5](x))  # (B, 192, H/32, W/32)
        x = tap(self.stages[6](x))  # (B, 320, H/32, W/32)
        x = tap(self.last(x))  # (B, 1280, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """The authors' code's rules: N(0, 2 / fan_out), and for the classifier U(-1, 1) / sqrt(K)."""
        init_layers(root, conv=fan_out_normal_, linear=fan_out_uniform_)
        for block in root.modules():
            if isinstance(block, InvertedResidual):
                depthwise_normal_(block.depthwise.get_submodule("conv").get_parameter("weight"))
        if self.config.zero_init_last:
            zero_last_projections(root)


def fan_out_normal_(weight: Tensor) -> None:
    """N(0, 2 / fan_out) for a convolution in one group."""
    nn.init.normal_(weight, std=math.sqrt(2.0 / (weight.shape[0] * weight[0, 0].numel())))


def depthwise_normal_(weight: Tensor) -> None:
    """N(0, 2 / fan_out) for a depthwise convolution, where an input px goes to one channel only."""
    nn.init.normal_(weight, std=math.sqrt(2.0 / weight[0, 0].numel()))


def fan_out_uniform_(weight: Tensor) -> None:
    """U(-1 / sqrt(fan_out), 1 / sqrt(fan_out))."""
    bound = 1.0 / math.sqrt(weight.shape[0])
    nn.init.uniform_(weight, -bound, bound)


SMALL = EfficientNetConfig()
LARGE = EfficientNetConfig(norm_eps=1e-3, norm_momentum=0.01)
LITE = dataclasses.replace(LARGE, lite=True, same_padding=True)
"""What B0 to B4, B5 to B7 and Lite have in common."""

VARIANTS = {
    name: dataclasses.replace(base, width_mult=width_mult, depth_mult=depth_mult, drop_rate=drop_rate)
    for name, base, width_mult, depth_mult, drop_rate in [
        ("efficientnet_b0", SMALL, 1.0, 1.0, 0.2),
        ("efficientnet_b1", SMALL, 1.0, 1.1, 0.2),
        ("efficientnet_b2", SMALL, 1.1, 1.2, 0.3),
        ("efficientnet_b3", SMALL, 1.2, 1.4, 0.3),
        ("efficientnet_b4", SMALL, 1.4, 1.8, 0.4),
        ("efficientnet_b5", LARGE, 1.6, 2.2, 0.4),
        ("efficientnet_b6", LARGE, 1.8, 2.6, 0.5),
        ("efficientnet_b7", LARGE, 2.0, 3.1, 0.5),
        ("efficientnet_lite0", LITE, 1.0, 1.0, 0.2),
        ("efficientnet_lite1", LITE, 1.0, 1.1, 0.2),
        ("efficientnet_lite2", LITE, 1.1, 1.2, 0.3),
        ("efficientnet_lite3", LITE, 1.2, 1.4, 0.3),
        ("efficientnet_lite4", LITE, 1.4, 1.8, 0.3),
    ]
}
