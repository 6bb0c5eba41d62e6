"""The network of NAS-Bench-201, which `cell_cifar` makes of a genotype of that paper.

Dong and Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
Section 2.1 and Figure 1.

| part     | px | layers                                              |
|----------|----|-----------------------------------------------------|
| stem     | 32 | 3x3 conv, C                                         |
| stages.0 | 32 | N cells, C                                          |
| stages.1 | 16 | residual block of stride 2; N cells, 2C             |
| stages.2 | 8  | residual block of stride 2; N cells, 4C             |
| last     | 8  | batch normalisation, ReLU                           |
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from convatlas.blocks.cell201 import ActConvNorm201, Cell201
from convatlas.blocks.conv import ConvNormAct, Norm
from convatlas.blocks.head import ClassifierHead
from convatlas.models.cell_network import CellConfig, init_cell_layers
from convatlas.models.network import Feature, FeatureHook, FeatureInfo, Network, identity


class HalvingBlock(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, beside a mean of 2x2 px and a 1x1.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/2, W/2), rounded up.

    Source: Dong and Yang 2020, Section 2.1; the authors' code.
    """

    def __init__(self, in_chans: int, out_chans: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ActConvNorm201(in_chans, out_chans, 3, 2, norm)
        self.conv2 = ActConvNorm201(out_chans, out_chans, 3, 1, norm)
        # At an odd size the last row and column stand alone; the mean is over the px that are there.
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.shortcut = nn.Conv2d(in_chans, out_chans, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Halves x (B, in_chans, H, W)."""
        return self.shortcut(self.pool(x)) + self.conv2(self.conv1(x))


class NASBench201(Network[CellConfig]):
    """Three stages of equal cells.

    Shape: x (B, C, H, W) -> logits (B, K).
    """

    min_input_size = 1

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=config.bn_eps)
        first = config.first_chans
        stem_chans = config.stem_chans or first
        self.stem = ConvNormAct(config.in_chans, stem_chans, 3, padding=1, norm=norm, act=None)
        stages: list[nn.Module] = []
        chans = stem_chans
        for i in range(3):
            halving: list[nn.Module] = [HalvingBlock(chans, first * 2**i, norm)] if i else []
            chans = first * 2**i if i else chans
            cells = [Cell201(config.genotype, chans, norm) for _ in range(config.depth)]
            stages.append(nn.Sequential(*halving, *cells))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Sequential(norm(chans), nn.ReLU(inplace=True))
        self.num_features = self.head_hidden_size = chans
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, 1),
                Feature("stages.0", stem_chans, 1),
                Feature("stages.1", 2 * first, 2),
                Feature("last", chans, 4),
            ]
        )
        self.head = ClassifierHead(
            chans, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs everything before the pooling."""
        x = tap(self.stem(x))  # (B, 16, H, W)
        x = tap(self.stages[0](x))  # (B, 16, H, W)
        x = tap(self.stages[1](x))  # (B, 32, H/2, W/2)
        x = self.stages[2](x)  # (B, 64, H/4, W/4)
        return tap(self.last(x))

    def init_weights(self, root: nn.Module) -> None:
        """As the networks of other cells: a variance of 2 / fan_out."""
        init_cell_layers(root)
