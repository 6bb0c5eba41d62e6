"""Xception: depthwise separable convolutions in place of Inception modules, with residual connections.

Chollet 2016, "Xception: Deep Learning with Depthwise Separable Convolutions", Figure 5.

| part     | what it is                                            | output, 299 px |
|----------|-------------------------------------------------------|----------------|
| stem     | 3x3 convs of 32 (stride 2) and 64, no padding         | 64, 147x147    |
| stages.0 | separable 128, 128, pooled                            | 128, 74x74     |
| stages.1 | separable 256, 256, pooled                            | 256, 37x37     |
| stages.2 | separable 728, 728, pooled; middle flow: 8 x 3 of 728 | 728, 19x19     |
| stages.3 | separable 728, 1024, pooled; separable 1536, 2048     | 2048, 10x10    |

Departs from paper: pooling pads symmetrically, as every PyTorch port does; the author's Keras code pads as
TensorFlow does, which on maps of even size lies one px further on.
Departs from paper: batch normalisation adds 1e-5 to the variance, as timm, where Keras's default is 1e-3.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from torch import Tensor, nn

from convatlas.blocks.cell_ops import SeparableConv
from convatlas.blocks.conv import ConvNormAct, Norm
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers, xavier_uniform_
from convatlas.blocks.residual import make_shortcut
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, check_count, identity

CHANS = (32, 64, 128, 256, 728, 1024, 1536, 2048)
"""Figure 5: channels, in the order of their first use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class XceptionConfig(Config):
    """The knobs of Xception.

    Args:
        middle_blocks: blocks of three separable convolutions in the middle flow.
        width_mult: how many times as many channels every layer has; multiples of 8.
        depth_mult: how many times as many blocks the middle flow has; rounded to the nearest number.
        bn_eps: what batch normalisation adds to the variance.
        global_pool: "avg", "max" or "".
    """

    drop_rate: float = 0.5
    middle_blocks: int = 8
    width_mult: float = 1.0
    depth_mult: float = 1.0
    bn_eps: float = 1e-5
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: a count or a rate is out of its range.
        """
        super().__post_init__()
        check_count("middle_blocks", self.middle_blocks, least=0)
        check_mult("width_mult", self.width_mult)
        check_mult("depth_mult", self.depth_mult)

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks of the middle flow."""
        return (scale_depth(self.middle_blocks, self.depth_mult),)

    def scale(self, chans: int) -> int:
        """Channels at this width."""
        return scale_chans(chans, self.width_mult)

    def build(self) -> Xception:
        """Makes the network."""
        return Xception(self)


class XceptionBlock(nn.Module):
    """Separable convolutions, each behind a ReLU, perhaps a pooling, and a residual connection.

    Args:
        in_chans: channels of the input.
        *chans: channels of each separable convolution.
        stride: px; of the pooling at the end, and of the projection beside it.
        starts_with_relu: whether a ReLU precedes the first convolution too; it leaves the input as it is.
        norm: makes each normalisation.

    Shape: x (B, in_chans, H, W) -> (B, chans[-1], H/stride, W/stride), rounded up.

    Source: Figure 5.
    """

    def __init__(
        self,
        in_chans: int,
        *chans: int,
        stride: int = 1,
        starts_with_relu: bool = True,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.shortcut = make_shortcut("B", in_chans, chans[-1], stride, norm=norm)
        self.act = nn.ReLU() if starts_with_relu else nn.Identity()
        convs: list[nn.Module] = []
        for i, out_chans in enumerate(chans):
            if i > 0:
                convs.append(nn.ReLU(inplace=True))
            convs.append(SeparableConv(in_chans, out_chans, 3, norm=norm))
            in_chans = out_chans
        self.convs = nn.Sequential(*convs)
        self.pool = nn.MaxPool2d(3, stride=stride, padding=1) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        return self.pool(self.convs(self.act(x))) + self.shortcut(x)


class Xception(Network[XceptionConfig]):
    """Xception.

    Shape: x (B, C, H, W) of at least 7 px -> logits (B, K).

    Shapes in comments: xception.
    """

    def __init__(self, config: XceptionConfig) -> None:
        super().__init__(config)
        norm: Norm = partial(nn.BatchNorm2d, eps=config.bn_eps)
        block = partial(XceptionBlock, norm=norm)
        narrow, stem, first, second, mid, wide, wider, last = map(config.scale, CHANS)
        self.stem = nn.Sequential(
            ConvNormAct(config.in_chans, narrow, 3, stride=2, norm=norm),
            ConvNormAct(narrow, stem, 3, norm=norm),
        )
        middle = (block(mid, mid, mid, mid) for _ in range(config.stage_depths[0]))
        end = [
            layer
            for in_chans, out_chans in ((wide, wider), (wider, last))
            for layer in (SeparableConv(in_chans, out_chans, 3, norm=norm), nn.ReLU(inplace=True))
        ]
        self.stages = nn.ModuleList(
            [
                block(stem, first, first, stride=2, starts_with_relu=False),
                block(first, second, second, stride=2),
                nn.Sequential(block(second, mid, mid, stride=2), *middle),
                nn.Sequential(block(mid, mid, wide, stride=2), *end),
            ]
        )
        ends = (first, second, mid, last)
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem, 2),
                *(Feature(f"stages.{i}", chans, 4 * 2**i) for i, chans in enumerate(ends)),
            ]
        )
        self.num_features = self.head_hidden_size = last
        self.min_input_size = 7  # 7 px leave 3 and then 1 in the stem, which has no padding.
        self.head = ClassifierHead(
            last, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the entry, middle and exit flows."""
        x = tap(self.stem(x))  # (B, 64, 147, 147)
        x = tap(self.stages[0](x))  # (B, 128, 74, 74)
        x = tap(self.stages[1](x))  # (B, 256, 37, 37)
        x = tap(self.stages[2](x))  # (B, 728, 19, 19)
        x = tap(self.stages[3](x))  # (B, 2048, 10, 10)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """As the author's Keras code, where the paper is silent: Xavier's uniform rule everywhere."""
        init_layers(root, conv=xavier_uniform_, linear=xavier_uniform_)


VARIANTS = {"xception": XceptionConfig()}
