"""ZFNet: AlexNet with a smaller first filter and stride, found by looking at what its layers see.

Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", Figure 3 and Table 2.

| layer | filters             | output at 224 px            |
|-------|---------------------|-----------------------------|
| 1     | 7x7/2, 96           | 110, pooled and normed to 55|
| 2     | 5x5/2, 256          | 26, pooled and normed to 13 |
| 3     | 3x3, 384 (big 512)  | 13                          |
| 4     | 3x3, 384 (big 1024) | 13                          |
| 5     | 3x3, 256 (big 512)  | 13, pooled to 6             |
| 6, 7  | 4096 each, dropout  | 1                           |

The paper prints the sizes, not how it gets them: conv1 is padded by 1 px and pooling rounds up.

Departs from paper: its contrast normalisation has AlexNet's constants; it refers there and prints none.
Departs from paper: weights "initialized to 10^-2" come from N(0, 0.01^2), as equal ones would stay equal.
Departs from paper: the cap on the RMS of a filter (0.1), applied while training, is no part of the network.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.init import gaussian_, init_layers
from convatlas.blocks.mlp_head import MlpHead
from convatlas.blocks.norm import LocalResponseNorm
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZFNetConfig(Config):
    """The knobs of ZFNet.

    Args:
        widths: filters of each of the five convolutions (Table 2 varies the last three).
        drop_rate: dropout after layers 6 and 7.
    """

    widths: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    drop_rate: float = 0.5

    def build(self) -> ZFNet:
        """Makes the network."""
        return ZFNet(self)


class ZFNet(Network[ZFNetConfig]):
    """ZFNet.

    Shape: x (B, 3, H, W) -> logits (B, K).

    Shapes in comments: zfnet.
    """

    def __init__(self, config: ZFNetConfig) -> None:
        super().__init__(config)
        conv = partial(ConvNormAct, norm=None)
        c1, c2, c3, c4, c5 = config.widths
        self.stem = conv(config.in_chans, c1, 7, stride=2, padding=1)
        stage2: OrderedDict[str, nn.Module] = OrderedDict(
            norm=LocalResponseNorm(), conv2=conv(c1, c2, 5, stride=2)
        )
        stage3: OrderedDict[str, nn.Module] = OrderedDict(
            norm=LocalResponseNorm(),
            conv3=conv(c2, c3, 3, padding=1),
            conv4=conv(c3, c4, 3, padding=1),
            conv5=conv(c4, c5, 3, padding=1),
        )
        self.stages = nn.ModuleList([nn.Sequential(stage2), nn.Sequential(stage3)])
        self.pools = nn.ModuleList(nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3))
        self.head = MlpHead(c5, config.num_classes, map_size=6, drop_rate=config.drop_rate)
        self.feature_info = FeatureInfo(
            [
                Feature("stem", c1, 2),
                Feature("stages.0", c2, 8),
                Feature("stages.1", c5, 16),
                Feature("pools.2", c5, 32),
            ]
        )
        self.num_features = c5
        self.head_hidden_size = self.head.hidden_size
        self.min_input_size = 47

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Layers 1 to 5: (B, 3, H, W) -> (B, 256, H', W'), 6 px for 224."""
        x = tap(self.stem(x))  # (B, 96, 110, 110)
        x = tap(self.stages[0](self.pools[0](x)))  # (B, 256, 26, 26)
        x = tap(self.stages[1](self.pools[1](x)))  # (B, 256, 13, 13)
        x = tap(self.pools[2](x))  # (B, 256, 6, 6)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """Section 3: 10^-2, biases 0."""
        init_layers(root, conv=gaussian_, linear=gaussian_)


VARIANTS = {
    "zfnet": ZFNetConfig(),
    "zfnet_big": ZFNetConfig(widths=(96, 256, 512, 1024, 512)),
}
