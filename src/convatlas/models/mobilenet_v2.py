"""MobileNetV2.

Sandler, Howard, Zhu, Zhmoginov and Chen 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
Table 2.

| stage | px  | blocks at width 1: expansion t, channels c, repeats n, stride s of the first |
|-------|-----|------------------------------------------------------------------------------|
| stem  | 112 | 3x3, 32, stride 2                                                            |
| 0     | 112 | t=1, c=16, n=1, s=1                                                          |
| 1     | 56  | t=6, c=24, n=2, s=2                                                          |
| 2     | 28  | t=6, c=32, n=3, s=2                                                          |
| 3     | 14  | t=6, c=64, n=4, s=2                                                          |
| 4     | 14  | t=6, c=96, n=3, s=1                                                          |
| 5     | 7   | t=6, c=160, n=3, s=2                                                         |
| 6     | 7   | t=6, c=320, n=1, s=1                                                         |
| last  | 7   | 1x1, 1280                                                                    |
| head  | 1   | mean, 1000 classes                                                           |

Channels at another width are rounded to multiples of 8. The last 1x1 keeps its 1280 channels below width 1
(Section 6.1) and widens above it, as in the authors' code.

Departs from paper: the authors' code pads as TensorFlow's "SAME"; here padding is symmetric, as in
torchvision and timm.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu6
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers
from convatlas.blocks.inverted import InvertedResidual, zero_last_projections
from convatlas.blocks.separable import check_mult, round_chans, slim_normal_
from convatlas.models.multipliers import scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity

STEM_CHANS = 32
LAST_CHANS = 1280
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Table 2: t, c, n and s of each stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2Config(Config):
    """The knobs of MobileNetV2.

    Args:
        width_mult: how many times as many channels the layers have.
        depth_mult: how many times as many blocks each stage has; rounded to the nearest number, at least 1.
        drop_rate: dropout before the classifier; 0.2 is the authors' code's.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
        zero_init_last: begin with every residual block as the identity.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    width_mult: float = 1.0
    depth_mult: float = 1.0
    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    zero_init_last: bool = False
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the multipliers.

        Raises:
            ValueError: one is not a number above 0.
        """
        super().__post_init__()
        check_mult("width_mult", self.width_mult)
        check_mult("depth_mult", self.depth_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return tuple(scale_depth(depth, self.depth_mult) for _, _, depth, _ in STAGES)

    @property
    def last_chans(self) -> int:
        """Channels of the last map."""
        return round_chans(LAST_CHANS * max(1.0, self.width_mult))

    def build(self) -> MobileNetV2:
        """Makes the network."""
        return MobileNetV2(self)


class MobileNetV2(Network[MobileNetV2Config]):
    """A stem, 17 inverted residuals and a last 1x1 convolution.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: mobilenet_v2_100.
    """

    min_input_size = 1

    def __init__(self, config: MobileNetV2Config) -> None:
        super().__init__(config)
        chans, total_stride = round_chans(STEM_CHANS * config.width_mult), 2
        features = [Feature("stem", chans, total_stride)]
        rates = iter(linear_drop_rates(config.drop_path_rate, sum(config.stage_depths)))
        self.stem = ConvNormAct(config.in_chans, chans, 3, stride=2, padding=1, act=relu6)
        self.stages = nn.ModuleList()
        for i, ((expansion, width, _, stride), depth) in enumerate(
            zip(STAGES, config.stage_depths, strict=True)
        ):
            out_chans = round_chans(width * config.width_mult)
            blocks: list[nn.Module] = []
            for j in range(depth):
                block = InvertedResidual(
                    chans,
                    out_chans,
                    stride=stride if j == 0 else 1,
                    expansion=expansion,
                    drop_path_rate=next(rates),
                )
                blocks.append(block)
                chans = out_chans
            total_stride *= stride
            self.stages.append(nn.Sequential(*blocks))
            features.append(Feature(f"stages.{i}", chans, total_stride))
        self.last = ConvNormAct(chans, config.last_chans, 1, act=relu6)
        self.feature_info = FeatureInfo([*features, Feature("last", config.last_chans, total_stride)])
        self.num_features = self.head_hidden_size = config.last_chans
        self.head = ClassifierHead(
            self.num_features, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs everything before the pooling."""
        x = tap(self.stem(x))  # (B, 32, H/2, W/2)
        x = tap(self.stages[0](x))  # (B, 16, H/2, W/2)
        x = tap(self.stages[1](x))  # (B, 24, H/4, W/4)
        x = tap(self.stages[2](x))  # (B, 32, H/8, W/8)
        x = tap(self.stages[3](x))  # (B, 64, H/16, W/16)
        x = tap(self.stages[4](x))  # (B, 96, H/16, W/16)
        x = tap(self.stages[5](x))  # (B, 160, H/32, W/32)
        x = tap(self.stages[6](x))  # (B, 320, H/32, W/32)
        x = tap(self.last(x))  # (B, 1280, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """A truncated normal distribution for all weights, as in the authors' code; the paper is silent."""
        init_layers(root, conv=slim_normal_, linear=slim_normal_)
        if self.config.zero_init_last:
            zero_last_projections(root)


VARIANTS = {
    "mobilenet_v2_035": MobileNetV2Config(width_mult=0.35),
    "mobilenet_v2_050": MobileNetV2Config(width_mult=0.5),
    "mobilenet_v2_075": MobileNetV2Config(width_mult=0.75),
    "mobilenet_v2_100": MobileNetV2Config(width_mult=1.0),
    "mobilenet_v2_130": MobileNetV2Config(width_mult=1.3),
    "mobilenet_v2_140": MobileNetV2Config(width_mult=1.4),
}
