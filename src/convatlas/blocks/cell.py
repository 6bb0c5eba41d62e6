"""Cells of searched networks: a genotype says which operations meet where, and `Cell` builds what it says."""

import dataclasses
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convatlas.blocks.cell_ops import OPERATIONS, ActConvNorm, FactorizedReduction, Site
from convatlas.blocks.conv import Norm
from convatlas.blocks.drop import DropPath


class Edge(NamedTuple):
    """One operation of a cell.

    Attributes:
        op: a name of `OPERATIONS`.
        state: what it is applied to: 0 the input, 1 the previous cell's input, 2 + i the i-th node.
    """

    op: str
    state: int


@dataclasses.dataclass(frozen=True)
class Genotype:
    """A cell as data.

    Args:
        nodes: for each node the edges whose results it sums.
        concat: states whose concatenation is the output, in order.

    Raises:
        ValueError: an operation is unknown, or a state is not there yet.
    """

    nodes: tuple[tuple[Edge, ...], ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks names and states."""
        for i, edges in enumerate(self.nodes):
            if not edges:
                raise ValueError(f"`nodes`[{i}] is empty; a node sums at least one operation")
            for op, state in edges:
                if op not in OPERATIONS:
                    raise ValueError(
                        f"`nodes`[{i}]: unknown operation {op!r}; allowed are {', '.join(OPERATIONS)}"
                    )
                if not 0 <= state < i + 2:
                    raise ValueError(f"`nodes`[{i}] reads state {state}; it may read 0 to {i + 1}")
        last = len(self.nodes) + 1
        if not self.concat or not all(0 <= state <= last for state in self.concat):
            raise ValueError(f"`concat`={self.concat!r}; expected at least one state of 0 to {last}")


class Cell(nn.Module):
    """What a genotype says, on two inputs: the last cell's output and that of the one before.

    Each input is first brought to `chans` channels (and the second to the first one's size); then every
    node sums its operations. Operations on the inputs stride, those on nodes do not.

    Args:
        genotype: the cell.
        in_chans: channels of the input.
        prev_chans: channels of the previous input; None where there is none: state 1 is then the input as
            it is, and each operation on it makes `chans` channels itself.
        chans: channels of each node.
        stride: px.
        prev_stride: 2 where the previous input is twice as large as the input.
        norm: makes each normalisation.
        drop_path_rate: probability that a sample's operation is dropped while training; identities stay.
        counts_padding: as `SamePool`.
        projects_prev: a 1x1 convolution brings the previous input to `chans` channels even if it has them.

    Attributes:
        out_chans: channels of the output.
        drop_path: drops operations; a schedule sets its `drop_rate` to a share of `drop_path_rate`.

    Shape: x (B, in_chans, H, W), prev (B, prev_chans, H * prev_stride, W * prev_stride)
        -> (B, out_chans, H/stride, W/stride), rounded up.

    Source: Zoph et al. 2017, Section 3.1 and Appendix A.4.
    """

    def __init__(
        self,
        genotype: Genotype,
        in_chans: int,
        prev_chans: int | None,
        chans: int,
        *,
        stride: int = 1,
        prev_stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        drop_path_rate: float = 0.0,
        counts_padding: bool = False,
        projects_prev: bool = False,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.drop_path_rate = drop_path_rate
        self.out_chans = chans * len(genotype.concat)
        self.project = ActConvNorm(in_chans, chans, norm=norm)
        if prev_chans is None:
            self.project_prev: nn.Module = nn.Identity()
        elif prev_stride == 2:
            self.project_prev = FactorizedReduction(prev_chans, chans, norm)
        elif projects_prev or prev_chans != chans:
            self.project_prev = ActConvNorm(prev_chans, chans, norm=norm)
        else:
            self.project_prev = nn.Identity()
        state_chans = [chans, in_chans if prev_chans is None else chans, *[chans] * len(genotype.nodes)]
        nodes: list[nn.ModuleList] = []
        for edges in genotype.nodes:
            ops: list[nn.Module] = []
            for op, state in edges:
                site = Site(state_chans[state], chans, stride if state < 2 else 1, norm, counts_padding)
                ops.append(OPERATIONS[op](site))
            nodes.append(nn.ModuleList(ops))
        self.nodes = nn.ModuleList(nodes)
        self.drop_path = DropPath(drop_path_rate)
        # State 1 as a part of the output, where no convolution has brought it to `chans` channels.
        self.project_concat = (
            nn.Sequential(nn.Conv2d(in_chans, chans, 1, bias=False), norm(chans))
            if 1 in genotype.concat and state_chans[1] != chans
            else nn.Identity()
        )
        # Inputs as parts of the output of a cell that strides.
        halves = stride == 2 and 0 in genotype.concat
        self.halve = FactorizedReduction(chans, chans, norm) if halves else nn.Identity()
        halves_prev = stride == 2 and 1 in genotype.concat
        self.halve_prev = FactorizedReduction(chans, chans, norm) if halves_prev else nn.Identity()

    def forward(self, x: Tensor, prev: Tensor) -> Tensor:
        """Runs every node on x and the previous input."""
        states = [self.project(x), self.project_prev(prev)]
        for edges, ops in zip(self.genotype.nodes, self.nodes, strict=True):
            parts = [
                op(states[state]) if name == "identity" else self.drop_path(op(states[state]))
                for (name, state), op in zip(edges, ops.children(), strict=True)
            ]
            states.append(reduce(add, parts))
        states[1] = self.halve_prev(self.project_concat(states[1]))
        states[0] = self.halve(states[0])
        return torch.cat([states[i] for i in self.genotype.concat], dim=1)
