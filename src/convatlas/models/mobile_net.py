"""Networks of inverted residuals with any kernels, expansions, depths, widths and gates.

Tan, Chen, Pang, Vasudevan, Sandler, Howard and Le 2018, "MnasNet: Platform-Aware Neural Architecture Search
for Mobile", Figures 4 and 7. `mobile_net` takes a `genotype`: its text, a file, or a `MobileGenotype`.
MobileNetV2, MnasNet-B1, MnasNet-A1 and EfficientNet-B0 are points of it (`KNOWN` in `convatlas.search`).

| stage | px  | MnasNet-B1: expansion, kernel, channels, repeats |
|-------|-----|--------------------------------------------------|
| stem  | 112 | 3x3, 32, stride 2                                |
| 0     | 112 | depthwise separable 3x3, 16, x1                  |
| 1     | 56  | MBConv3 3x3, 24, x3                              |
| 2     | 28  | MBConv3 5x5, 40, x3                              |
| 3     | 14  | MBConv6 5x5, 80, x3                              |
| 4     | 14  | MBConv6 3x3, 96, x2                              |
| 5     | 7   | MBConv6 5x5, 192, x4                             |
| 6     | 7   | MBConv6 3x3, 320, x1                             |
| last  | 7   | 1x1, 1280                                        |

Departs from paper: padding is symmetric, as in torchvision and timm.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from torch import Tensor, nn

from convatlas.blocks.conv import Act, ConvNormAct, relu, relu6, silu
from convatlas.blocks.drop import linear_drop_rates
from convatlas.blocks.genotype_files import read_genotype
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers
from convatlas.blocks.inverted import InvertedResidual
from convatlas.blocks.mobile_genotype import MobileGenotype
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.efficientnet import depthwise_normal_, fan_out_normal_, fan_out_uniform_
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity

MNASNET_B1 = "e1k3d1c16/e3k3d3c24/e3k5d3c40/e6k5d3c80/e6k3d2c96/e6k5d4c192/e6k3d1c320;act=relu"

ACTS: dict[str, Act] = {"relu": relu, "relu6": relu6, "silu": silu}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileConfig(Config):
    """The knobs of a network of inverted residuals.

    Args:
        genotype: the stages: a text, the path of a TOML or JSON file, a mapping, or a genotype.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, in proportion.
        global_pool: "avg", "max" or "".
    """

    genotype: Any = MNASNET_B1
    drop_rate: float = 0.2
    drop_path_rate: float = 0.0
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Reads the genotype.

        Raises:
            ValueError: it does not parse, or is one of cells.
        """
        super().__post_init__()
        genotype = read_genotype(self.genotype)
        if not isinstance(genotype, MobileGenotype):
            raise ValueError(
                f"`genotype`={self.genotype!r} is one of cells; mobile_net takes stages, such as e6k3d2c24"
            )
        object.__setattr__(self, "genotype", genotype)

    def build(self) -> MobileNet:
        """Makes the network."""
        return MobileNet(self)


class MobileNet(Network[MobileConfig]):
    """A stem, stages of inverted residuals and a last 1x1 convolution.

    Shape: x (B, C, H, W) -> logits (B, K).

    Shapes in comments: mobile_net.
    """

    min_input_size = 1

    def __init__(self, config: MobileConfig) -> None:
        super().__init__(config)
        genotype: MobileGenotype = config.genotype
        act = ACTS[genotype.act]
        chans, total_stride = genotype.stem_chans, genotype.stem_stride
        self.stem = ConvNormAct(config.in_chans, chans, 3, stride=total_stride, padding=1, act=act)
        features = [Feature("stem", chans, total_stride)]
        rates = iter(linear_drop_rates(config.drop_path_rate, sum(s.depth for s in genotype.stages)))
        stages: list[nn.Module] = []
        for i, (stage, stride) in enumerate(zip(genotype.stages, genotype.strides, strict=False)):
            blocks: list[nn.Module] = []
            for j in range(stage.depth):
                # The gate narrows to a quarter of what enters the block, not of what it is expanded to.
                squeeze = partial(SqueezeExcite, mid_chans=max(1, chans // 4), act=act)
                block = InvertedResidual(
                    chans,
                    stage.chans,
                    stage.kernel_size,
                    stride=stride if j == 0 else 1,
                    expansion=stage.expansion,
                    act=act,
                    squeeze=squeeze if stage.squeeze else None,
                    drop_path_rate=next(rates),
                )
                blocks.append(block)
                chans = stage.chans
            total_stride *= stride
            stages.append(nn.Sequential(*blocks))
            features.append(Feature(f"stages.{i}", chans, total_stride))
        self.stages = nn.ModuleList(stages)
        self.last = ConvNormAct(chans, genotype.last_chans, 1, act=act)
        self.feature_info = FeatureInfo([*features, Feature("last", genotype.last_chans, total_stride)])
        self.num_features = self.head_hidden_size = genotype.last_chans
        self.head = ClassifierHead(
            self.num_features, config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs everything before the pooling."""
        x = tap(self.stem(x))  # (B, 32, H/2, W/2)
        for stage in self.stages:
            x = tap(stage(x))
        return tap(self.last(x))  # (B, 1280, H/32, W/32)

    def init_weights(self, root: nn.Module) -> None:
        """The rules of EfficientNet's code: N(0, 2 / fan_out), and for the classifier U(-1, 1) / sqrt(K)."""
        init_layers(root, conv=fan_out_normal_, linear=fan_out_uniform_)
        for block in root.modules():
            if isinstance(block, InvertedResidual):
                depthwise_normal_(block.depthwise.get_submodule("conv").get_parameter("weight"))


VARIANTS = {"mobile_net": MobileConfig()}
"""MnasNet-B1 where no genotype is given."""
