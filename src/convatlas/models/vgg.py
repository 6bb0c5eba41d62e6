"""VGG: depth from small filters alone.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", Table 1.
Every convolution is 3x3 with padding 1 (1x1 where said), every pooling is 2x2 with stride 2.

| stage | width | A, A-LRN  | B | C             | D | E |
|-------|-------|-----------|---|---------------|---|---|
| 1     | 64    | 1 (+ LRN) | 2 | 2             | 2 | 2 |
| 2     | 128   | 1         | 2 | 2             | 2 | 2 |
| 3     | 256   | 2         | 2 | 2 and one 1x1 | 3 | 4 |
| 4     | 512   | 2         | 2 | 2 and one 1x1 | 3 | 4 |
| 5     | 512   | 2         | 2 | 2 and one 1x1 | 3 | 4 |
| head  | 4096, 4096, K; dropout after the first two |

`vgg11` is A, `vgg13` B, `vgg16` D, `vgg19` E; `vgg11_lrn` is A-LRN and `vgg16_1x1` is C.

Departs from paper: its results started net A from N(0, 0.1^2) and deeper nets from A's weights. Here all
follow Glorot and Bengio's rule, which Section 3.1 found to suffice; `init_std=0.1` gives net A's start.
Departs from paper: the `_bn` networks, with batch normalisation after each convolution, came later. As in
torchvision their convolutions keep a bias, which the normalisation makes idle.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.init import init_layers, xavier_uniform_
from convatlas.blocks.mlp_head import MlpHead
from convatlas.blocks.norm import LocalResponseNorm
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = (4096, 4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGGConfig(Config):
    """The knobs of VGG.

    Args:
        depths: convolutions in each of the five stages.
        depth_mult: how many times as many convolutions each stage has; rounded to the nearest number, at
            least 1.
        width_mult: how many times as many channels the stages, and units the hidden layers, have; multiples
            of 8.
        batch_norm: batch normalisation after each convolution.
        local_norm: local response normalisation after the first convolution (A-LRN).
        pointwise_last: the last convolution of stages 3, 4 and 5 is 1x1 (C).
        drop_rate: dropout after each of the two hidden layers.
        init_std: draw weights from N(0, init_std^2); None for Glorot and Bengio's rule.
    """

    depths: tuple[int, int, int, int, int]
    depth_mult: float = 1.0
    width_mult: float = 1.0
    batch_norm: bool = False
    local_norm: bool = False
    pointwise_last: bool = False
    drop_rate: float = 0.5
    init_std: float | None = None

    def __post_init__(self) -> None:
        """Checks the multipliers.

        Raises:
            ValueError: one is not a number above 0.
        """
        super().__post_init__()
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Convolutions in each stage."""
        return tuple(scale_depth(depth, self.depth_mult) for depth in self.depths)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(scale_chans(width, self.width_mult) for width in WIDTHS)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return tuple(scale_chans(units, self.width_mult) for units in HIDDEN)

    def build(self) -> VGG:
        """Makes the network."""
        return VGG(self)


def make_stage(config: VGGConfig, index: int) -> nn.Sequential:
    """The convolutions of a column of Table 1 between two poolings.

    Args:
        config: which column.
        index: which stage, from 0.
    """
    norm = nn.BatchNorm2d if config.batch_norm else None
    width = config.stage_widths[index]
    in_chans = config.stage_widths[index - 1] if index > 0 else config.in_chans
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, config.stage_depths[index] + 1):
        pointwise = config.pointwise_last and index >= 2 and i == config.stage_depths[index]
        kernel_size = 1 if pointwise else 3
        layers[f"conv{i}"] = ConvNormAct(
            in_chans, width, kernel_size, padding=kernel_size // 2, norm=norm, bias=True
        )
        in_chans = width
    if config.local_norm and index == 0:
        layers["lrn"] = LocalResponseNorm()
    return nn.Sequential(layers)


class VGG(Network[VGGConfig]):
    """VGG.

    Shape: x (B, 3, H, W) -> logits (B, K).

    Shapes in comments: vgg16.
    """

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(config)
        widths = config.stage_widths
        self.stages = nn.ModuleList(make_stage(config, i) for i in range(5))
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in range(5))
        self.head = MlpHead(
            widths[-1], config.num_classes, map_size=7, hidden=config.hidden, drop_rate=config.drop_rate
        )
        self.feature_info = FeatureInfo(
            [Feature(f"stages.{i}", widths[i], 2**i) for i in range(5)] + [Feature("pools.4", widths[-1], 32)]
        )
        self.num_features = widths[-1]
        self.head_hidden_size = self.head.hidden_size
        self.min_input_size = 32

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Stages 1 to 5: (B, 3, H, W) -> (B, 512, H/32, W/32)."""
        x = tap(self.stages[0](x))  # (B, 64, H, W)
        x = tap(self.stages[1](self.pools[0](x)))  # (B, 128, H/2, W/2)
        x = tap(self.stages[2](self.pools[1](x)))  # (B, 256, H/4, W/4)
        x = tap(self.stages[3](self.pools[2](x)))  # (B, 512, H/8, W/8)
        x = tap(self.stages[4](self.pools[3](x)))  # (B, 512, H/16, W/16)
        x = tap(self.pools[4](x))  # (B, 512, H/32, W/32)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """Section 3.1: Glorot and Bengio's rule, or N(0, init_std^2); biases 0."""
        init_layers(root, conv=self._draw, linear=self._draw)

    def _draw(self, weight: Tensor) -> None:
        if self.config.init_std is None:
            xavier_uniform_(weight)
        else:
            nn.init.normal_(weight, std=self.config.init_std)


VARIANTS = {
    "vgg11": VGGConfig(depths=(1, 1, 2, 2, 2)),
    "vgg11_lrn": VGGConfig(depths=(1, 1, 2, 2, 2), local_norm=True),
    "vgg13": VGGConfig(depths=(2, 2, 2, 2, 2)),
    "vgg16_1x1": VGGConfig(depths=(2, 2, 3, 3, 3), pointwise_last=True),
    "vgg16": VGGConfig(depths=(2, 2, 3, 3, 3)),
    "vgg19": VGGConfig(depths=(2, 2, 4, 4, 4)),
    "vgg11_bn": VGGConfig(depths=(1, 1, 2, 2, 2), batch_norm=True),
    "vgg13_bn": VGGConfig(depths=(2, 2, 2, 2, 2), batch_norm=True),
    "vgg16_bn": VGGConfig(depths=(2, 2, 3, 3, 3), batch_norm=True),
    "vgg19_bn": VGGConfig(depths=(2, 2, 4, 4, 4), batch_norm=True),
}
