"""Blocks and stages: what the cards of a figure stand for."""

from __future__ import annotations

from dataclasses import dataclass

from .graph import Node, common_path
from .tree import Lanes, Series, residual_of, series_nodes


@dataclass(frozen=True)
class Unit:
    """A block, or a layer that stands alone.

    Attributes:
        kind: layer, join, residual, lanes, gate, dense, chain or cell.
        series: what it is made of.
        nodes: the same, in execution order.
        path: the module that runs it.
        reads: units that it reads.
        repeats: of a dense block, its layers.
        growth: of a dense block, the channels that each layer adds.
    """

    kind: str
    series: Series
    nodes: tuple[Node, ...]
    path: str
    reads: tuple[int, ...] = ()
    repeats: int = 1
    growth: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its output."""
        return self.nodes[-1].shape

    @property
    def last(self) -> Node:
        """The node that gives its output."""
        return self.nodes[-1]

    @property
    def params(self) -> int:
        """Parameters."""
        return sum(node.params for node in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(node.macs for node in self.nodes)

    @property
    def strided(self) -> bool:
        """Whether one of its convolutions or poolings has a stride."""
        return any(node.stride for node in self.nodes)

    @property
    def is_block(self) -> bool:
        """Whether it is more than one layer."""
        return self.kind not in ("layer", "join")

    @property
    def has_projection(self) -> bool:
        """Whether its shortcut has operations."""
        return any(
            (found := residual_of(element)) is not None and found.projection is not None
            for element in self.series
            if isinstance(element, Lanes)
        )


@dataclass(frozen=True)
class Stage:
    """Units of one size, under one name.

    Attributes:
        name: stem, stage 1, ..., head.
        units: in execution order.
    """

    name: str
    units: tuple[Unit, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its output."""
        return self.units[-1].shape

    @property
    def params(self) -> int:
        """Parameters."""
        return sum(unit.params for unit in self.units)

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(unit.macs for unit in self.units)

    @property
    def path(self) -> str:
        """The module that runs all of it."""
        return common_path([node for unit in self.units for node in unit.nodes])


def unit_signature(unit: Unit) -> tuple[object, ...]:
    """Equal for units that are drawn as one stack: the same operations, wiring, sizes and strides."""
    first = unit.nodes[0].index
    return (
        unit.kind, unit.repeats, unit.growth,
        tuple((n.text, n.shape, n.kind, n.params, _relative(n, first)) for n in unit.nodes),
    )  # fmt: skip


def kind_signature(unit: Unit) -> tuple[object, ...]:
    """Equal for units that one inset explains: the same operations and wiring, whatever their sizes."""
    if unit.kind == "dense":
        return ("dense", *(_form(n) for n in series_nodes(unit.series)))
    first = unit.nodes[0].index
    return (
        unit.kind, unit.has_projection,
        tuple((_form(n), _relative(n, first)) for n in unit.nodes),
    )  # fmt: skip


def _relative(node: Node, first: int) -> tuple[int, ...]:
    """What a node reads, counted from its block's first node; -1 for what is before it."""
    return tuple(max(-1, read - first) for read in node.inputs)


def _form(node: Node) -> tuple[object, ...]:
    window = () if node.family == "dw" or (node.kind == "pool" and node.px == 1) else node.kernel
    return (node.kind, node.family, window, node.groups > 1, node.label if node.kind == "sum" else "")
