"""The cell of NAS-Bench-201: four states, and one operation between each two of them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import Norm
from convatlas.blocks.genotype import GenotypeError
from convatlas.errors import UnknownNameError, nearest

OPERATIONS_201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What an edge may be, by the names of the paper's code."""

EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""Each edge as (state that it goes to, state that it comes from), in the order of the text."""


@dataclasses.dataclass(frozen=True)
class Genotype201:
    """A cell of NAS-Bench-201.

    Args:
        ops: the operation of each edge of `EDGES`.
        cells: N, cells in each stage; None leaves it to the network.
        chans: C of the first stage; None leaves it to the network.

    Raises:
        ValueError: an operation is unknown, or there are not six.
    """

    ops: tuple[str, ...]
    cells: int | None = None
    chans: int | None = None

    def __post_init__(self) -> None:
        """Checks the names."""
        if len(self.ops) != len(EDGES):
            raise GenotypeError(f"`ops`={self.ops!r}; expected {len(EDGES)} operations, one for each edge")
        for op in self.ops:
            if op not in OPERATIONS_201:
                raise UnknownNameError(
                    f"unknown operation {op!r}; nearest: {nearest(op, OPERATIONS_201)}; "
                    f"allowed are {', '.join(OPERATIONS_201)}"
                )
        for name in ("cells", "chans"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise GenotypeError(f"`{name}`={value!r}; expected a whole number of at least 1")

    @property
    def text(self) -> str:
        """The paper's text form: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        words = [f"{op}~{source}" for op, (_, source) in zip(self.ops, EDGES, strict=True)]
        cell = "+".join(f"|{'|'.join(part)}|" for part in (words[:1], words[1:3], words[3:]))
        return cell + "".join(f";{name}={value}" for name, value in self.options.items())

    @property
    def options(self) -> dict[str, int]:
        """What differs from the defaults, beside the operations."""
        given = {"cells": self.cells, "chans": self.chans}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        return self.text


def parse_201(text: str) -> Genotype201:
    """Reads the paper's text form.

    Raises:
        GenotypeError: it does not parse; says where and what is allowed there.
    """
    cell, *options = text.strip().split(";")
    nodes = cell.split("+")
    if len(nodes) != 3:
        raise GenotypeError(
            f"genotype {text!r} has {len(nodes)} nodes; expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        )
    ops: list[str] = []
    for i, node in enumerate(nodes):
        words = node.strip().strip("|").split("|")
        sources = [word.rpartition("~")[2] for word in words]
        if sources != [str(j) for j in range(i + 1)]:
            raise GenotypeError(
                f"node {i + 1} of the genotype is {node!r}; expected "
                f"{'|' + ''.join(f'OPERATION~{j}|' for j in range(i + 1))}, with an operation of "
                f"{', '.join(OPERATIONS_201)}"
            )
        for word in words:
            op = word.rpartition("~")[0]
            if op not in OPERATIONS_201:
                raise UnknownNameError(
                    f"node {i + 1} of the genotype: unknown operation {op!r}; "
                    f"nearest: {nearest(op, OPERATIONS_201)}; allowed are {', '.join(OPERATIONS_201)}"
                )
            ops.append(op)
    values: dict[str, int] = {}
    for item in options:
        name, _, value = item.partition("=")
        if name not in ("cells", "chans") or not value.isdecimal():
            raise GenotypeError(f"genotype: {item!r}; allowed are cells=N and chans=C")
        values[name] = int(value)
    return Genotype201(tuple(ops), **values)


class ActConvNorm201(nn.Sequential):
    """A ReLU, a convolution and a normalisation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride), rounded up.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.norm = norm(out_chans)


def make_op_201(name: str, chans: int, norm: Norm) -> nn.Module | None:
    """The operation of an edge; None for "none", which is not there."""
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return ActConvNorm201(chans, chans, 3 if name == "nor_conv_3x3" else 1, 1, norm)


class Cell201(nn.Module):
    """A cell of NAS-Bench-201: each state sums operations on the states before it; the last is the output.

    A state that nothing reaches is zero.

    Shape: x (B, chans, H, W) -> (B, chans, H, W).

    Source: Dong and Yang 2020, "NAS-Bench-201", Figure 1.
    """

    def __init__(self, genotype: Genotype201, chans: int, norm: Norm) -> None:
        super().__init__()
        self.genotype = genotype
        made = [make_op_201(name, chans, norm) for name in genotype.ops]
        self.reaches = [op is not None for op in made]
        self.ops = nn.ModuleList(op if op is not None else nn.Identity() for op in made)

    def forward(self, x: Tensor) -> Tensor:
        """Runs every edge on x (B, chans, H, W)."""
        states: list[Tensor | None] = [x, None, None, None]
        for (target, source), op, reaches in zip(EDGES, self.ops, self.reaches, strict=True):
            if not reaches:
                continue
            value = states[source]
            part = op(torch.zeros_like(x) if value is None else value)
            before = states[target]
            states[target] = part if before is None else before + part
        last = states[-1]
        return torch.zeros_like(x) if last is None else last
