"""Networks of any two cells: the general builders of searched architectures.

Zoph, Vasudevan, Shlens and Le 2017, "Learning Transferable Architectures for Scalable Image Recognition",
Figures 2 to 4. `cell_cifar` and `cell_imagenet` take a `genotype`: its text, a file, or a `CellGenotype`; a
text of NAS-Bench-201 makes that paper's network. NASNet-A, AmoebaNet-A, PNASNet-5, DARTS-V2 and ENAS are
points of it (`KNOWN` in `convatlas.search`).

| part     | ImageNet                                  | CIFAR                |
|----------|-------------------------------------------|----------------------|
| stem     | 3x3 conv of stride 2 (darts: three convs) | 3x3 conv             |
| stages.0 | reduction cell, F/4 (darts: N normal, F)  | N normal cells, F    |
| stages.1 | reduction cell, F/2; N normal, F          | reduction, N; 2F     |
| stages.2 | reduction cell, 2F; N normal              | reduction, N; 4F     |
| stages.3 | reduction cell, 4F; N normal              |                      |

Departs from paper: there is no side classifier.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from torch import Tensor, nn

from convatlas.blocks.cell import Cell
from convatlas.blocks.cell201 import Genotype201
from convatlas.blocks.conv import ConvNormAct, Norm, relu
from convatlas.blocks.genotype import CellGenotype
from convatlas.blocks.genotype_files import read_genotype
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.init import init_layers
from convatlas.models.network import (
    Config,
    Feature,
    FeatureHook,
    FeatureInfo,
    Network,
    check_count,
    identity,
)

NASNET_A = (
    "0.sep5+1.sep3/1.sep5+1.sep3/0.avg3+1.id/1.avg3+1.avg3/0.sep3+0.id>1.2.3.4.5.6"
    "|0.sep5+1.sep7/0.max3+1.sep7/0.avg3+1.sep5/3.id+2.avg3/2.sep3+0.max3>3.4.5.6"
)
"""NASNet-A, Figure 4: what the builders make where no genotype is given."""

AnyGenotype = CellGenotype | Genotype201


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellConfig(Config):
    """The knobs of a network of cells.

    Args:
        genotype: the cells: a text, the path of a TOML or JSON file, a mapping, or a genotype.
        cells: N, normal cells in each stage; None for the genotype's, or 2 (ImageNet: 4).
        chans: F, channels of each node of the first stage; None for the genotype's, or 32 (ImageNet: 44).
        stem_chans: channels of the first convolution; None for what the genotype says, or 3 F.
        imagenet_stem: the stem for images of some 224 px, which it makes eight times smaller.
        drop_path_rate: of the last cell at the end of training; grows with depth and with `progress`.
        bn_eps: what batch normalisation adds to the variance.
        counts_padding: strided means divide by px outside the image too, as timm runs the weights.
        global_pool: "avg", "max" or "".
    """

    genotype: Any = NASNET_A
    cells: int | None = None
    chans: int | None = None
    stem_chans: int | None = None
    imagenet_stem: bool = False
    drop_path_rate: float = 0.0
    bn_eps: float = 1e-5
    counts_padding: bool = False
    global_pool: str = "avg"

    def __post_init__(self) -> None:
        """Reads the genotype and checks the values.

        Raises:
            ValueError: the genotype does not parse, or a count or a rate is out of its range.
        """
        super().__post_init__()
        genotype = read_genotype(self.genotype)
        if not isinstance(genotype, CellGenotype | Genotype201):
            raise ValueError(
                f"`genotype`={self.genotype!r} is one of mobile_net; cell_cifar and cell_imagenet take cells"
            )
        object.__setattr__(self, "genotype", genotype)
        for name in ("cells", "chans", "stem_chans"):
            value = getattr(self, name)
            if value is not None:
                check_count(name, value, least=1)
        if self.imagenet_stem and isinstance(genotype, Genotype201):
            raise ValueError(
                "cells of NAS-Bench-201 make networks for small images: build them as cell_cifar"
            )
        if self.imagenet_stem and getattr(genotype, "stem", "") == "nasnet" and self.first_chans < 4:
            raise ValueError(
                f"`chans`={self.first_chans!r}; the stem's cells have a quarter: expected at least 4"
            )

    @property
    def depth(self) -> int:
        """N, normal cells in each stage."""
        default = 5 if isinstance(self.genotype, Genotype201) else 4 if self.imagenet_stem else 2
        return self.cells or self.genotype.cells or default

    @property
    def first_chans(self) -> int:
        """F, channels of each node of the first stage."""
        default = 16 if isinstance(self.genotype, Genotype201) else 44 if self.imagenet_stem else 32
        return self.chans or self.genotype.chans or default

    @property
    def first_stem_chans(self) -> int:
        """Channels of the first convolution."""
        given = self.stem_chans or getattr(self.genotype, "stem_chans", None)
        if not self.imagenet_stem:
            return given or 3 * self.first_chans
        return given or (32 if self.genotype.stem == "nasnet" else self.first_chans)

    def build(self) -> Network[Any]:
        """Makes the network."""
        if isinstance(self.genotype, Genotype201):
            from convatlas.models.nasbench201 import NASBench201

            return NASBench201(self)
        return CellNetwork(self)


@dataclasses.dataclass(frozen=True)
class _Made:
    """A cell's output, as cells after it need to know it."""

    chans: int
    stride: int


class _Stack:
    """Makes cells one after another, and remembers their outputs and which of them each cell takes."""

    def __init__(self, config: CellConfig, norm: Norm) -> None:
        self.config = config
        self.genotype: CellGenotype = config.genotype
        self.norm = norm
        self.made: list[_Made] = []
        self.second_inputs: list[int] = []
        own_normals = config.depth - self.genotype.counts_reduction
        self.num_cells = config.depth + 2 * own_normals + 2

    def add(self, chans: int, *, reduces: bool = False, back: int = 2) -> Cell:
        """The next cell; its second input is `back` outputs back."""
        config, last = self.config, self.made[-1]
        prev = self.made[-back] if len(self.made) >= back else None
        self.second_inputs.append(len(self.made) - back if prev is not None else 0)
        if prev is None and self.genotype.stem == "darts":
            prev = last  # The stem is both inputs of the first cell.
        cell = Cell(
            self.genotype.halving if reduces else self.genotype.normal,
            last.chans,
            prev.chans if prev is not None else None,
            chans,
            stride=2 if reduces else 1,
            prev_stride=last.stride // prev.stride if prev is not None else 1,
            norm=self.norm,
            drop_path_rate=config.drop_path_rate * min(1.0, len(self.made) / self.num_cells),
            counts_padding=config.counts_padding,
            projects_prev=self.genotype.stem == "darts",
        )
        self.made.append(_Made(cell.out_chans, last.stride * (2 if reduces else 1)))
        return cell

    def stage(self, chans: int, *, reduces: bool) -> list[Cell]:
        """N normal cells, behind a reduction where it `reduces`."""
        cells = [self.add(chans, reduces=True)] if reduces else []
        for i in range(self.config.depth - (reduces and self.genotype.counts_reduction)):
            skips = reduces and i == 0 and self.genotype.skip_reduction
            cells.append(self.add(chans, back=3 if skips else 2))
        return cells


class DartsStem(nn.Sequential):
    """Convolutions of stride 2: two that end in `first`, and one behind a ReLU.

    Shape: x (B, C, H, W) -> (B, chans, H/8, W/8), rounded up.

    Source: the authors' code of DARTS.
    """

    def __init__(self, in_chans: int, chans: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Sequential(
            ConvNormAct(in_chans, max(1, chans // 2), 3, stride=2, padding=1, norm=norm, act=relu),
            ConvNormAct(max(1, chans // 2), chans, 3, stride=2, padding=1, norm=norm, act=None),
        )
        self.act = nn.ReLU()
        self.second = ConvNormAct(chans, chans, 3, stride=2, padding=1, norm=norm, act=None)


class CellNetwork(Network[CellConfig]):
    """A stem, and stages of cells.

    Shape: x (B, C, H, W) of at least 3 px (CIFAR: 1 px) -> logits (B, K).

    Shapes in comments: cell_cifar.
    """

    def __init__(self, config: CellConfig) -> None:
        super().__init__(config)
        norm = partial(nn.BatchNorm2d, eps=config.bn_eps)
        darts = config.genotype.stem == "darts"
        stack, chans, stem_chans = _Stack(config, norm), config.first_chans, config.first_stem_chans
        deep = config.imagenet_stem and not darts
        stride = 1
        if config.imagenet_stem and darts:
            self.stem: nn.Module = DartsStem(config.in_chans, stem_chans, norm)
            stack.made = [_Made(stem_chans, 4), _Made(stem_chans, 8)]
            stride = 8
        else:
            stride, padding = (2, 0) if config.imagenet_stem else (1, 1)
            self.stem = ConvNormAct(
                config.in_chans, stem_chans, 3, stride=stride, padding=padding, norm=norm, act=None
            )
            stack.made = [_Made(stem_chans, stride)]
        stem_cells = [stack.add(chans // part, reduces=True) for part in ((4, 2) if deep else ())]
        stages = [stem_cells[1:] + stack.stage(chans, reduces=False)]
        stages += [stack.stage(2 * chans, reduces=True), stack.stage(4 * chans, reduces=True)]
        if deep:
            stages.insert(0, stem_cells[:1])
        self.stages = nn.ModuleList(nn.ModuleList(cells) for cells in stages)
        self.act = nn.Identity() if darts else nn.ReLU()
        outs = [cells[-1].out_chans for cells in stages]
        paths = [f"stages.{i}.{len(cells) - 1}" for i, cells in enumerate(stages)]
        paths[-1] = "act"
        strides = [stride * 2 ** (i + deep) for i in range(len(stages))]
        self.feature_info = FeatureInfo(
            [
                Feature("stem", stem_chans, stride),
                *(Feature(*each) for each in zip(paths, outs, strides, strict=True)),
            ]
        )
        self.num_features = self.head_hidden_size = outs[-1]
        self.min_input_size = 3 if deep else 1
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
        """
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"`progress`={value!r}; expected the share of training that is over, 0 to 1")
        self._progress = value
        for cell in self.modules():
            if isinstance(cell, Cell):
                cell.drop_path.drop_rate = cell.drop_path_rate * value

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """Runs the stem and the cells."""
        outputs: list[Tensor] = []
        if isinstance(self.stem, DartsStem):
            outputs.append(self.stem.first(x))
            outputs.append(tap(self.stem.second(self.stem.act(outputs[0]))))
        else:
            outputs.append(tap(self.stem(x)))  # (B, 96, H, W)
        second_inputs = iter(self._second_inputs)
        for stage in self.stages:
            for cell in stage.children():
                outputs.append(cell(outputs[-1], outputs[next(second_inputs)]))
            if stage is not self.stages[-1]:
                outputs[-1] = tap(outputs[-1])
        return tap(self.act(outputs[-1]))  # (B, 768, H/4, W/4)

    def init_weights(self, root: nn.Module) -> None:
        """As the authors' code of NASNet, where the paper is silent: a variance of 2 / fan_out."""
        init_cell_layers(root)


def init_cell_layers(root: nn.Module) -> None:
    """Uniform with a variance of 2 / fan_out; a depthwise convolution's fan is that of one channel."""
    init_layers(root, conv=_fan_out_uniform_, linear=_fan_out_uniform_)
    for layer in root.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.kaiming_uniform_(layer.weight, mode="fan_in", nonlinearity="relu")


def _fan_out_uniform_(weight: Tensor) -> None:
    nn.init.kaiming_uniform_(weight, mode="fan_out", nonlinearity="relu")


VARIANTS = {
    "cell_cifar": CellConfig(num_classes=10),
    "cell_imagenet": CellConfig(imagenet_stem=True, bn_eps=1e-3),
}
