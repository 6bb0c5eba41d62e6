"""Network in Network: a small perceptron at every place, and no fully connected layer.

Lin, Chen and Yan 2013, "Network In Network", Section 3 and Figure 2. An mlpconv layer is a convolution and
two 1x1 convolutions, each with ReLU. The last emits one map for each class, whose mean is the class's logit.
The paper prints no table of widths; they are those of the first author's published files.

| mlpconv | `nin_cifar`         | `nin_imagenet`           |
|---------|---------------------|--------------------------|
| 1       | 5x5 192, 160, 96    | 11x11/4 96, 96, 96       |
| pool    | max 3x3/2, dropout  | max 3x3/2                |
| 2       | 5x5 192, 192, 192   | 5x5 256, 256, 256        |
| pool    | mean 3x3/2, dropout | max 3x3/2                |
| 3       | 3x3 192, 192, K     | 3x3 384, 384, 384        |
| pool    | mean of all places  | max 3x3/2, dropout       |
| 4       |                     | 3x3 1024, 1024, K        |
| pool    |                     | mean of all places       |

Pooling rounds up. ReLU is applied to the class maps too, so that no logit is negative.

Departs from paper: it sets the initial weights by hand and prints none; here they come from N(0, 0.05^2), as
in the author's ImageNet file, which has 0.01 in the first layers of mlpconv 1 and 3 and in the last of 4.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.head import check_global_pool, global_pool_2d
from convatlas.blocks.init import gaussian_, init_layers
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity


@dataclasses.dataclass(frozen=True)
class MlpConv:
    """One mlpconv layer of a network's table.

    Args:
        kernel_size: px of the first convolution.
        widths: channels of the three convolutions; two for the last layer, whose third emits the classes.
        stride: px of the first convolution.
        padding: px of the first convolution.
        pool: what stands in front: "max" or "avg", 3x3 with stride 2; "" for nothing.
        dropout: dropout between that pooling and this layer.
    """

    kernel_size: int
    widths: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    pool: str = ""
    dropout: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class NiNConfig(Config):
    """The knobs of Network in Network.

    Args:
        layers: the mlpconv layers, at least three.
        drop_rate: dropout between mlpconv layers.
        global_pool: how class maps become logits: "avg" (the paper), "max", or "" (maps; needs no classes).
    """

    layers: tuple[MlpConv, ...]
    drop_rate: float = 0.5
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the layers.

        Raises:
            ValueError: there are fewer than three, or one pools in an unknown way.
        """
        super().__post_init__()
        if len(self.layers) < 3:
            raise ValueError(f"`layers`: received {len(self.layers)}; expected at least 3 mlpconv layers")
        for spec in self.layers:
            if spec.pool not in ("max", "avg", ""):
                raise ValueError(f'`pool`={spec.pool!r}; allowed are "max", "avg" and "" (no pooling)')

    def build(self) -> NiN:
        """Makes the network."""
        return NiN(self)


def make_layer(spec: MlpConv, in_chans: int, drop_rate: float) -> nn.Sequential:
    """An mlpconv layer, with the pooling and the dropout in front of it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.pool:
        kind = nn.MaxPool2d if spec.pool == "max" else nn.AvgPool2d
        layers["pool"] = kind(3, 2, ceil_mode=True)
    if spec.dropout:
        layers["dropout"] = nn.Dropout(drop_rate)
    width, *pointwise = spec.widths
    layers["conv1"] = ConvNormAct(
        in_chans, width, spec.kernel_size, stride=spec.stride, padding=spec.padding, norm=None
    )
    for i, out_chans in enumerate(pointwise, start=2):
        layers[f"conv{i}"] = ConvNormAct(width, out_chans, 1, norm=None)
        width = out_chans
    return nn.Sequential(layers)


class NiNHead(nn.Module):
    """The third convolution of the last mlpconv layer, and the mean of each class's map.

    Args:
        in_chans: C of the feature map.
        num_classes: K; 0 leaves out the convolution, so that the pooled feature map comes out.
        global_pool: "avg", "max", or "" (needs `num_classes=0`).

    Shape: x (B, C, H, W) -> (B, K).
    """

    def __init__(self, in_chans: int, num_classes: int, global_pool: str) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the convolution by a new one for `num_classes`, and the pooling if one is named."""
        if global_pool is not None:
            self.global_pool = global_pool
        check_global_pool(self.global_pool, num_classes)
        self.fc = nn.Conv2d(self.in_chans, num_classes, 1) if num_classes > 0 else nn.Identity()

    def equalise_logits(self) -> None:
        """Sets every logit to 1: at 0, ReLU would let no gradient through."""
        if isinstance(self.fc, nn.Conv2d):
            nn.init.zeros_(self.fc.weight)
            if self.fc.bias is not None:
                nn.init.ones_(self.fc.bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits of a feature map; with `pre_logits` the pooled feature map comes out instead."""
        return global_pool_2d(x if pre_logits else F.relu(self.fc(x)), self.global_pool)


gaussian = partial(gaussian_, std=0.05)


class NiN(Network[NiNConfig]):
    """Network in Network.

    Shape: x (B, 3, H, W) -> logits (B, K), none of them negative.

    Shapes in comments: nin_imagenet.
    """

    def __init__(self, config: NiNConfig) -> None:
        super().__init__(config)
        stages: list[nn.Module] = []
        features: list[Feature] = []
        in_chans, stride = config.in_chans, 1
        for i, spec in enumerate(config.layers):
            stages.append(make_layer(spec, in_chans, config.drop_rate))
            in_chans = spec.widths[-1]
            stride *= spec.stride * (2 if spec.pool else 1)
            features.append(Feature(f"stages.{i}", in_chans, stride))
        self.stages = nn.ModuleList(stages)
        self.head = NiNHead(in_chans, config.num_classes, config.global_pool)
        self.feature_info = FeatureInfo(features)
        self.num_features = in_chans
        self.head_hidden_size = in_chans
        self.min_input_size = smallest_input(config)

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """All but the last convolution: (B, 3, H, W) -> (B, num_features, H', W')."""
        x = tap(self.stages[0](x))  # (B, 96, 54, 54)
        x = tap(self.stages[1](x))  # (B, 256, 27, 27)
        x = tap(self.stages[2](x))  # (B, 384, 13, 13)
        for stage in list(self.stages)[3:]:
            x = tap(stage(x))  # (B, 1024, 6, 6)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """N(0, 0.05^2), biases 0."""
        init_layers(root, conv=gaussian, linear=gaussian)


def smallest_input(config: NiNConfig) -> int:
    """Smallest size in px that leaves a map of 1 px at the end."""
    size = 1
    for spec in reversed(config.layers):
        size = (size - 1) * spec.stride + max(1, spec.kernel_size - 2 * spec.padding)
        if spec.pool:
            size = 2 * size  # the smallest map that 3x3 pooling with stride 2, rounded up, takes to `size`
    return size


VARIANTS = {
    "nin_cifar": NiNConfig(
        num_classes=10,
        layers=(
            MlpConv(5, (192, 160, 96), padding=2),
            MlpConv(5, (192, 192, 192), padding=2, pool="max", dropout=True),
            MlpConv(3, (192, 192), padding=1, pool="avg", dropout=True),
        ),
    ),
    "nin_imagenet": NiNConfig(
        layers=(
            MlpConv(11, (96, 96, 96), stride=4),
            MlpConv(5, (256, 256, 256), padding=2, pool="max"),
            MlpConv(3, (384, 384, 384), padding=1, pool="max"),
            MlpConv(3, (1024, 1024), padding=1, pool="max", dropout=True),
        ),
    ),
}
