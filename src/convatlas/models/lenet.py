"""LeNet-5: the 1998 network, and the one that courses teach under its name.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Section II.B, Figure 2 and Table I. Shapes in comments are those of both variants at 32 px.

| layer  | maps     | taught                | 1998                                       |
|--------|----------|-----------------------|--------------------------------------------|
| C1     | 6, 28x28 | 5x5                   | 5x5                                        |
| S2     | 6, 14x14 | mean                  | sum of 2x2, coefficient, bias, squashing   |
| C3     | 16, 10x10| 5x5 on all six maps   | 5x5 on the maps of Table I                 |
| S4     | 16, 5x5  | mean                  | as S2                                      |
| C5     | 120, 1x1 | 5x5                   | 5x5                                        |
| F6     | 84       | linear                | linear                                     |
| OUTPUT | 10       | linear                | distance to ten fixed 7x12 bitmaps         |

Departs from paper: `lenet5` has a full C3, mean pooling, plain tanh and a linear output.
Departs from paper: `lenet5_1998` logits are negated distances, so that the largest wins.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.init import init_layers, lecun_uniform_, xavier_uniform_
from convatlas.models.network import Config, Feature, FeatureHook, FeatureInfo, Network, identity

# Table I: which maps of S2 feed each map of C3.
C3_INPUTS = (
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    (
        (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2),
        (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    ),
    ((0, 1, 2, 3, 4, 5),),
)  # fmt: skip
F6_UNITS = 84


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeNetConfig(Config):
    """The knobs of LeNet-5.

    Args:
        year_1998: the printed network rather than the taught one.
    """

    num_classes: int = 10
    in_chans: int = 1
    year_1998: bool = False

    def build(self) -> LeNet:
        """Makes the network."""
        return LeNet(self)


class ScaledTanh(nn.Module):
    """A tanh(S a) with A = 1.7159 and S = 2/3, so that f(1) = 1 and f(-1) = -1 (Appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Squashes every element of x (...)."""
        return 1.7159 * torch.tanh(x * (2.0 / 3.0))


class Subsampling(nn.Module):
    """Sum of each 2x2 neighbourhood, times a trainable coefficient, plus a trainable bias, squashed.

    Shape: x (B, C, H, W) -> (B, C, H/2, W/2).

    Source: Section II.B, layers S2 and S4.
    """

    def __init__(self, chans: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(chans, 1, 1))
        self.bias = nn.Parameter(torch.empty(chans, 1, 1))
        self.pool = nn.AvgPool2d(2)
        self.act = ScaledTanh()

    def reset_parameters(self) -> None:
        """Appendix A's rule for a unit with four inputs that share one coefficient: a mean at first."""
        nn.init.constant_(self.coefficient, 0.25)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Halves H and W of x (B, C, H, W)."""
        return self.act(4.0 * self.pool(x) * self.coefficient + self.bias)


class TableConv(nn.Module):
    """C3: each output map is a 5x5 convolution of the input maps that the table names.

    Output maps with equally many inputs run as one grouped convolution over gathered maps, so that
    parameters and multiply-adds are those of the table.

    Shape: x (B, 6, H, W) -> (B, 16, H-4, W-4).

    Source: Table I.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(len(table) * len(table[0]), len(table), 5, groups=len(table)) for table in C3_INPUTS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolves x (B, 6, H, W) by the table."""
        maps = [
            conv(x[:, [i for inputs in table for i in inputs]])
            for conv, table in zip(self.convs, C3_INPUTS, strict=True)
        ]
        return torch.cat(maps, dim=1)


# Figure 3, the digits: ink is 1, paper is -1. Rows from top to bottom, seven px each.
# Departs from paper: the figure prints them too small to be sure of every px; these are drawn after it.
DIGIT_BITMAPS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...#...  ..###..  .#####.  ....##.  .#####.  ..####.  .#####.  ..###..  ..###..
.#...#.  ..##...  .#...#.  .....#.  ...#.#.  .#.....  .#.....  .....#.  .#...#.  .#...#.
#.....#  ...#...  #.....#  ....#..  ..#..#.  .#.....  #......  .....#.  #.....#  #.....#
#.....#  ...#...  ......#  ...#...  .#...#.  .####..  #.###..  ....#..  .#...#.  #.....#
#.....#  ...#...  .....#.  ..###..  #....#.  .....#.  ##...#.  ....#..  ..###..  .#...##
#.....#  ...#...  ....#..  .....#.  #######  ......#  #.....#  ...#...  .#...#.  ..###.#
#.....#  ...#...  ...#...  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
.#...#.  ...#...  ..#....  #.....#  .....#.  #....#.  .#...#.  ..#....  .#...#.  .....#.
..###..  ..###..  #######  .#####.  .....#.  .####..  ..###..  ..#....  ..###..  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def class_codes(num_classes: int) -> Tensor:
    """The target of F6 for each class, (K, 84), of -1 and 1.

    For ten classes, the bitmaps of the digits; for another number random codes, which Section II.C
    names as the alternative, drawn with a fixed seed.
    """
    if num_classes == 10:
        rows = [line.split() for line in DIGIT_BITMAPS.split("\n") if line]
        bits = [[[px == "#" for px in row[digit]] for row in rows] for digit in range(10)]
        return torch.tensor(bits, dtype=torch.float32).mul(2.0).sub(1.0).flatten(1)
    generator = torch.Generator().manual_seed(1998)
    return torch.randint(0, 2, (num_classes, F6_UNITS), generator=generator).float().mul(2.0).sub(1.0)


class RbfOutput(nn.Module):
    """Negated squared distance between F6 and the fixed code of each class.

    Shape: x (B, 84) -> (B, K).

    Source: Section II.B, Eq. 7.
    """

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("codes", torch.empty(num_classes, F6_UNITS))

    def reset_parameters(self) -> None:
        """Sets the codes, which training leaves as they are."""
        with torch.no_grad():
            self.codes.copy_(class_codes(self.num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Compares x (B, 84) with every code."""
        return -(x[:, None, :] - self.codes).square().sum(dim=2)


def rbf_loss(logits: Tensor, target: Tensor, rubbish_distance: float = 0.1) -> Tensor:
    """The criterion of `lenet5_1998`, averaged over the batch.

    The distance to the right code, plus a term that pushes the wrong codes away; `rubbish_distance` bounds
    that push, as a further class at a constant distance would.

    Args:
        logits: negated distances (B, K).
        target: class of each sample, (B,).
        rubbish_distance: j of the paper, a positive constant that it does not print.

    Source: Eq. 9.
    """
    rubbish = torch.full_like(logits[:, :1], -rubbish_distance)
    return F.cross_entropy(torch.cat([logits, rubbish], dim=1), target)


class LeNetHead(nn.Module):
    """C5, F6 and the output layer.

    On images larger than 32 px C5 answers at several places, as the paper says; their mean goes on.

    Shape: x (B, 16, H, W) -> (B, K).
    """

    def __init__(self, config: LeNetConfig) -> None:
        super().__init__()
        act = ScaledTanh if config.year_1998 else nn.Tanh
        self.year_1998 = config.year_1998
        self.c5 = ConvNormAct(16, 120, 5, norm=None, act=act)
        self.f6 = nn.Linear(120, F6_UNITS)
        self.act = act()
        self.dropout = nn.Dropout(config.drop_rate)
        self.reset(config.num_classes)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the output layer."""
        if global_pool is not None:
            raise ValueError(f"`global_pool`={global_pool!r}: LeNet-5 has no global pooling to choose")
        output = RbfOutput if self.year_1998 else _linear_output
        self.fc = output(num_classes) if num_classes > 0 else nn.Identity()

    def equalise_logits(self) -> None:
        """Sets the last layer with parameters to 0: in 1998 that is F6, since the codes are fixed."""
        last = self.f6 if isinstance(self.fc, RbfOutput) else self.fc
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Computes the logits of the maps of S4; with `pre_logits` F6 comes out instead."""
        x = self.c5(x).mean(dim=(2, 3))  # (B, 120)
        x = self.act(self.f6(x))  # (B, 84)
        return x if pre_logits else self.fc(self.dropout(x))  # (B, K)


def _linear_output(num_classes: int) -> nn.Linear:
    return nn.Linear(F6_UNITS, num_classes)


class LeNet(Network[LeNetConfig]):
    """LeNet-5.

    Shape: x (B, 1, H, W) of at least 32 px -> logits (B, K).
    """

    def __init__(self, config: LeNetConfig) -> None:
        super().__init__(config)
        act = ScaledTanh if config.year_1998 else nn.Tanh
        c1 = ConvNormAct(config.in_chans, 6, 5, norm=None, act=act)
        if config.year_1998:
            c3 = nn.Sequential(TableConv(), ScaledTanh())
            s2, s4 = Subsampling(6), Subsampling(16)
        else:
            c3 = ConvNormAct(6, 16, 5, norm=None, act=act)
            s2, s4 = nn.AvgPool2d(2), nn.AvgPool2d(2)
        self.stages = nn.ModuleList([nn.Sequential(c1, s2), nn.Sequential(c3, s4)])
        self.head = LeNetHead(config)
        self.feature_info = FeatureInfo([Feature("stages.0", 6, 2), Feature("stages.1", 16, 4)])
        self.num_features = 16
        self.head_hidden_size = F6_UNITS
        self.min_input_size = 32

    def features(self, x: Tensor, tap: FeatureHook = identity) -> Tensor:
        """C1 to S4: (B, 1, H, W) -> (B, 16, H', W'), 5 px for 32."""
        x = tap(self.stages[0](x))  # (B, 6, 14, 14)
        x = tap(self.stages[1](x))  # (B, 16, 5, 5)
        return x

    def init_weights(self, root: nn.Module) -> None:
        """Appendix A: U(-2.4/F, 2.4/F) for F inputs; the taught network follows Xavier.

        Departs from paper: `lenet5` uses Xavier's rule, which suits its plain tanh.
        """
        rule = lecun_uniform_ if self.config.year_1998 else xavier_uniform_
        init_layers(root, conv=rule, linear=rule)


VARIANTS = {
    "lenet5": LeNetConfig(),
    "lenet5_1998": LeNetConfig(year_1998=True),
}
