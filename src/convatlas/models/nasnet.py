"""NASNet-A: cells found by search on CIFAR-10, stacked for CIFAR-10 and for ImageNet.

Zoph, Vasudevan, Shlens and Le 2017, "Learning Transferable Architectures for Scalable Image Recognition",
Figures 2 and 4; what these leave open (strides, projections, drop-path) is that of the authors' code.

| part     | ImageNet                          | CIFAR                |
|----------|-----------------------------------|----------------------|
| stem     | 3x3 conv of stride 2, no padding  | 3x3 conv             |
| stages.0 | reduction cell, F/4               | N normal cells, F    |
| stages.1 | reduction cell, F/2; N normal, F  | reduction, N; 2F     |
| stages.2 | reduction cell, 2F; N normal      | reduction, N; 4F     |
| stages.3 | reduction cell, 4F; N normal      |                      |

"N @ P" names a network with N normal cells a stage and P = 24 F channels at its end.

Departs from paper: the side classifier pools to the map that it has at the published input size, so that
any size works.
Departs from paper: batch statistics average with a factor of 0.9, torch's; the ImageNet code has 0.9997.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

from torch import Tensor, nn

from convatlas.blocks.cell import Cell, Edge, Genotype
from convatlas.blocks.conv import ConvNormAct, Norm, relu
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import AuxHead
from convatlas.blocks.init import init_layers
from convatlas.blocks.separable import check_mult
from convatlas.models.multipliers import scale_chans, scale_depth
from convatlas.models.network import (
    AuxLogits,
    Config,
    Feature,
    FeatureHook,
    FeatureInfo,
    Network,
    check_count,
    identity,
)

# Figure 4. State 0 is the input of the cell, state 1 that of the cell before.
NORMAL = Genotype(
    nodes=(
        (Edge("separable5x5", 0), Edge("separable3x3", 1)),
        (Edge("separable5x5", 1), Edge("separable3x3", 1)),
        (Edge("mean3x3", 0), Edge("identity", 1)),
        (Edge("mean3x3", 1), Edge("mean3x3", 1)),
        (Edge("separable3x3", 0), Edge("identity", 0)),
    ),
    concat=(1, 2, 3, 4, 5, 6),
)
REDUCTION = Genotype(
    nodes=(
        (Edge("separable5x5", 0), Edge("separable7x7", 1)),
        (Edge("max3x3", 0), Edge("separable7x7", 1)),
        (Edge("mean3x3", 0), Edge("separable5x5", 1)),
        (Edge("identity", 3), Edge("mean3x3", 2)),
        (Edge("separable3x3", 2), Edge("max3x3", 0)),
    ),
    concat=(3, 4, 5, 6),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NASNetConfig(Config):
    """The knobs of a NASNet.

    Args:
        normal: the cell that keeps the size.
        reduction: the cell that halves it.
        cells: N, normal cells in each stage.
        chans: F, channels of each node of the first stage's cells.
        stem_chans: channels of the first convolution.
        depth_mult: how many times as many normal cells each stage has; rounded to the nearest number.
        width_mult: how many times as many channels the first convolution and the cells have; multiples of 4.
        imagenet_stem: a strided first convolution and two reduction cells, in front of the first stage.
        skip_reduction: the cell after a reduction takes its second input from before it, two cells back.
        aux_heads: the side classifier at the end of the stage before the last reduction.
        aux_size: px of the map that it pools to, that of the published input size.
        counts_padding: strided means divide by px outside the image too, as timm runs the weights.
        drop_path_rate: of the last cell at the end of training; grows with depth and with `progress`.
        bn_eps: what batch normalisation adds to the variance.
        global_pool: "avg", "max" or "".
    """

    normal: Genotype = NORMAL
    reduction: Genotype = REDUCTION
    cells: int
    chans: int
    stem_chans: int
    depth_mult: float = 1.0
    width_mult: float = 1.0
    imagenet_stem: bool = True
    skip_reduction: bool = False
    aux_heads: bool = True
    aux_size: int = 14
    counts_padding: bool = False
    drop_path_rate: float = 0.0
    bn_eps: float = 1e-3
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: a count or a rate is out of its range.
        """
        super().__post_init__()
        for name in ("cells", "chans", "stem_chans"):
            check_count(name, getattr(self, name), least=1)
        check_mult("depth_mult", self.depth_mult)
        check_mult("width_mult", self.width_mult)
        check_count("aux_size", self.aux_size, least=5)
        if self.imagenet_stem and self.chans % 4:
            raise ValueError(
                f"`chans`={self.chans!r}; the stem's cells have a quarter: expected a multiple of 4"
            )

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Normal cells in each stage."""
        return (scale_depth(self.cells, self.depth_mult),) * 3

    @property
    def scaled_chans(self) -> int:
        """F at this width."""
        return scale_chans(self.chans, self.width_mult, 4)

    @property
    def scaled_stem_chans(self) -> int:
        """Channels of the first convolution, at this width."""
        return scale_chans(self.stem_chans, self.width_mult, 4)

    def build(self) -> NASNet:
        """Makes the network."""
        return NASNet(self)


@dataclasses.dataclass(frozen=True)
class _Made:
    """A cell's output, as cells after it need to know it."""

    chans: int
    stride: int


class _Stack:
    """Makes cells one after another, and remembers their outputs and which of them each cell takes."""

    def __init__(self, config: NASNetConfig, norm: Norm) -> None:
        self.config = config
        self.norm = norm
        self.made = [_Made(config.scaled_stem_chans, 2 if config.imagenet_stem else 1)]
        self.second_inputs: list[int] = []
        self.num_cells = sum(config.stage_depths) + (4 if config.imagenet_stem else 2)

    def add(self, chans: int, *, reduces: bool = False, back: int = 2) -> Cell:
        """The next cell; its second input is `back` outputs back."""
        config, last = self.config, self.made[-1]
        prev = self.made[-back] if len(self.made) >= back else None
        self.second_inputs.append(len(self.made) - back if prev is not None else 0)
        depth = len(self.made) / self.num_cells
        cell = Cell(
            config.reduction if reduces else config.normal,
            last.chans,
            prev.chans if prev is not None else None,
            chans,
            stride=2 if reduces else 1,
            prev_stride=last.stride // prev.stride if prev is not None else 1,
            norm=self.norm,
            drop_path_rate=config.drop_path_rate * depth,
            counts_padding=config.counts_padding,
        )
        self.made.append(_Made(cell.out_chans, last.stride * (2 if reduces else 1)))
        return cell

    def stage(self, chans: int, *, reduces: bool) -> list[Cell]:
        """N normal cells, behind a reduction where it `reduces`."""
        cells = [self.add(chans, reduces=True)] if reduces else []
        for i in range(self.config.stage_depths[0]):
            after_reduction = reduces and i == 0
            cells.append(self.add(chans, back=3 if after_reduction and self.config.skip_reduction else 2))
        return cells


def make_aux_head(in_chans: int, config: NASNetConfig) -> AuxHead:
    """Mean of 5x5 px at stride 3, a 1x1 convolution, one over all that is left, classes."""
    norm = partial(nn.BatchNorm2d, eps=config.bn_eps)
    body = nn.Sequential(
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(config.aux_size),
        nn.AvgPool2d(5, stride=3),
        ConvNormAct(in_chans, 128, 1, norm=norm, act=relu),
        ConvNormAct(128, 768, (config.aux_size - 5) // 3 + 1, norm=norm, act=relu),  # (B, 768, 1, 1)
        nn.Flatten(),
    )
    return AuxHead(body, 768, config.num_classes)


class NASNet(Network[NASNetConfig]):
    """NASNet-A.

    Shape: x (B, C, H, W) of at least 3 px (CIFAR: 1 px) -> logits (B, K).

    Shapes in comments: nasnet_a_large.
    """

    def __init__(self, config: NASNetConfig) -> None:
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=config.bn_eps)
        chans = config.scaled_chans
        stride, padding = (2, 0) if config.imagenet_stem else (1, 1)
        self.stem = ConvNormAct(
            config.in_chans, config.scaled_stem_chans, 3, stride=stride, padding=padding, norm=norm, act=None
        )
        stack = _Stack(config, norm)
        stem_cells = (
            [stack.add(chans // 4, reduces=True), stack.add(chans // 2, reduces=True)]
            if (config.imagenet_stem)
            else []
        )
        stages = [stem_cells[1:] + stack.stage(chans, reduces=False)]
        stages += [stack.stage(2 * chans, reduces=True), stack.stage(4 * chans, reduces=True)]
        if config.imagenet_stem:
            stages.insert(0, stem_cells[:1])
        self.stages = nn.ModuleList(nn.ModuleList(cells) for cells in stages)
        self.act = nn.ReLU()
        outs = [cells[-1].out_chans for cells in stages]
        self.aux_heads = nn.ModuleList([make_aux_head(outs[-2], config)] if config.aux_heads else [])
        first = 2 if config.imagenet_stem else 1
        paths = [f"stages.{i}.{len(cells) - 1}" for i, cells in enumerate(stages)]
        paths[-1] = "act"
        strides = [first * 2 ** (i + (1 if config.imagenet_stem else 0)) for i in range(len(stages))]
        self.feature_info = FeatureInfo(
            [
                Feature("stem", config.scaled_stem_chans, first),
                *(Feature(*each) for each in zip(paths, outs, strides, strict=True)),
            ]
        )
        self.num_features = self.head_hidden_size = outs[-1]
        self.min_input_size = 3 if config.imagenet_stem else 1
        self.head = ClassifierHead(
            outs[-1], config.num_classes, global_pool=config.global_pool, drop_rate=config.drop_rate
        )
        self._second_inputs = stack.second_inputs
        self._progress = 1.0

    @property
    def progress(self) -> float:
        """Share of training that is over, 0 to 1: drop-path rates are this share of their final values."""
        return self._progress

    @progress.setter
    def progress(self, value: float) -> None:
        """Sets the drop-path rates.

        Raises:
            ValueError: the value is not a share.

        Source: Section 4 ("ScheduledDropPath").
        """
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"`progress`={value!r}; expected the share of training that is over, 0 to 1")
        self._progress = value
        for cell in self.modules():
            if isinstance(cell, Cell):
                cell.drop_path.drop_rate = cell.drop_path_rate * value

    def set_progress(self, fraction: float) -> None:
        """Sets `progress`, and with it the drop-path rates."""
        self.progress = fraction

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the cells."""
        outputs = [tap(self.stem(x))]  # (B, 96, 165, 165)
        second_inputs = iter(self._second_inputs)
        for stage in self.stages:
            for cell in stage.children():
                outputs.append(cell(outputs[-1], outputs[next(second_inputs)]))
            if stage is not self.stages[-1]:
                outputs[-1] = tap(outputs[-1])
        return tap(self.act(outputs[-1]))  # (B, 4032, 11, 11)

    def forward_aux(self, x: Tensor) -> AuxLogits:
        """Logits of the end, and of the side classifier at two thirds of the depth.

        Raises:
            ValueError: as `forward`.
        """
        maps = self.forward_stages(x)
        return AuxLogits(self.forward_head(maps[-1]), tuple(head(maps[-2]) for head in self.aux_heads))

    def init_weights(self, root: nn.Module) -> None:
        """As the authors' code, where the paper is silent: a variance of 2 / fan_out.

        The fan of a depthwise convolution is that of one channel, as TensorFlow counts it.

        Departs from paper: uniform, where the code draws from a truncated normal distribution.
        """
        init_layers(root, conv=_fan_out_uniform_, linear=_fan_out_uniform_)
        for layer in root.modules():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                bound = math.sqrt(6.0 / layer.weight[0].numel())
                nn.init.uniform_(layer.weight, -bound, bound)


def _fan_out_uniform_(weight: Tensor) -> None:
    nn.init.kaiming_uniform_(weight, mode="fan_out", nonlinearity="relu")


VARIANTS = {
    "nasnet_a_mobile": NASNetConfig(cells=4, chans=44, stem_chans=32, drop_rate=0.5),
    "nasnet_a_large": NASNetConfig(
        cells=6,
        chans=168,
        stem_chans=96,
        skip_reduction=True,
        aux_size=21,
        counts_padding=True,
        drop_rate=0.5,
        drop_path_rate=0.3,
    ),
    "nasnet_a_cifar": NASNetConfig(
        num_classes=10,
        cells=6,
        chans=32,
        stem_chans=96,
        imagenet_stem=False,
        aux_size=16,
        drop_path_rate=0.4,
        bn_eps=1e-5,
    ),
}
