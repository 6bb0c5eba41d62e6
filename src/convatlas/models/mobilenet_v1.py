"""MobileNet (version 1).

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam 2017, "MobileNets: Efficient Convolutional
Neural Networks for Mobile Vision Applications", Table 1.

| stage | px  | layers at width 1                          |
|-------|-----|--------------------------------------------|
| stem  | 112 | 3x3, 32, stride 2                          |
| 0     | 112 | separable, 64                              |
| 1     | 56  | separable, 128, stride 2; 128              |
| 2     | 28  | separable, 256, stride 2; 256              |
| 3     | 14  | separable, 512, stride 2; 512 x5           |
| 4     | 7   | separable, 1024, stride 2; 1024            |
| head  | 1   | mean, 1000 classes                         |

The width multiplier alpha scales every number of channels, the stem's and the last included. The resolution
multiplier rho is the size of the input: 224, 192, 160 or 128 px in the paper, any size here.

Departs from paper: Table 1 prints stride 2 for the last depthwise convolution too, and a 7x7 output that
only stride 1 gives; stride 1, as the authors' code.
Departs from paper: ReLU6 as in the authors' code, where the paper says ReLU; `relu6=False` is as printed.
Departs from paper: the authors' code pads as TensorFlow's "SAME"; here padding is symmetric, as in timm.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu, relu6
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers
from convatlas.blocks.separable import DepthwiseSeparable, check_mult, slim_normal_
from convatlas.models.multipliers import scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity

STEM_CHANS = 32
STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
"""Table 1: channels and blocks of each stage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV1Config(Config):
    """The knobs of MobileNet.

    Args:
        width_mult: alpha, how many times as many channels every layer has.
        depth_mult: how many times as many blocks each stage has; rounded to the nearest number, at least 1.
        relu6: whether activations are cut off at 6.
        global_pool: how the last map becomes a vector, "avg", "max" or "".
    """

    width_mult: float = 1.0
    depth_mult: float = 1.0
    relu6: bool = True
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
        return tuple(scale_depth(depth, self.depth_mult) for _, depth in STAGES)

    def scale(self, chans: int) -> int:
        """Channels at this width: rounded down, and at least 8, as in the authors' code."""
        return max(8, int(chans * self.width_mult))

    def build(self) -> MobileNetV1:
        """Makes the network."""
        return MobileNetV1(self)


class MobileNetV1(Network[MobileNetV1Config]):
    """A stem and 13 depthwise separable blocks.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: mobilenet_v1_100.
    """

    min_input_size = 1

    def __init__(self, config: MobileNetV1Config) -> None:
        super().__init__(config)
        act = relu6 if config.relu6 else relu
        chans = config.scale(STEM_CHANS)
        features = [Feature("stem", chans, 2)]
        self.stem = ConvNormAct(config.in_chans, chans, 3, stride=2, padding=1, act=act)
        self.stages = nn.ModuleList()
        for i, ((width, _), depth) in enumerate(zip(STAGES, config.stage_depths, strict=True)):
            blocks: list[nn.Module] = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(DepthwiseSeparable(chans, config.scale(width), stride=stride, act=act))
                chans = config.scale(width)
            self.stages.append(nn.Sequential(*blocks))
            features.append(Feature(f"stages.{i}", chans, 2 * 2**i))
        self.feature_info = FeatureInfo(features)
        self.num_features = self.head_hidden_size = chans
        self.head = ClassifierHead(
            chans, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the stages."""
        x = tap(self.stem(x))  # (B, 32, H/2, W/2)
        x = tap(self.stages[0](x))  # (B, 64, H/2, W/2)
        x = tap(self.stages[1](x))  # (B, 128, H/4, W/4)
        x = tap(self.stages[2](x))  # (B, 256, H/8, W/8)
        x = tap(self.stages[3](x))  # (B, 512, H/16, W/16)
        x = tap(self.stages[4](x))  # (B, 1024, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """A truncated normal distribution for all weights, as in the authors' code; the paper is silent."""
        init_layers(root, conv=slim_normal_, linear=slim_normal_)


VARIANTS = {
    "mobilenet_v1_025": MobileNetV1Config(width_mult=0.25),
    "mobilenet_v1_050": MobileNetV1Config(width_mult=0.5),
    "mobilenet_v1_075": MobileNetV1Config(width_mult=0.75),
    "mobilenet_v1_100": MobileNetV1Config(width_mult=1.0),
}
