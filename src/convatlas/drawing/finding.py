"""Blocks, recognised from the wiring and the tree of modules, never from names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import nn

from .graph import Graph, Node, common_path
from .merging import CONTAINERS, merged_cells, merged_chains, merged_dense
from .tree import Cell, Lanes, Leaf, Series, decompose, nodes_of, residual_of, series_nodes, sub_series
from .units import Unit

# A part of the network whose wiring is no composition of series and lanes is one block up to this size.
LARGEST_CELL = 24


def find_units(graph: Graph, net: nn.Module) -> tuple[Unit, ...]:
    """The network's units in execution order; its inputs come first, as layers."""
    found = _Finder(graph, net)
    found.add(decompose(graph))
    units = merged_chains(merged_cells(found.units, graph, net), graph, net)
    return _linked(merged_dense(units))


@dataclass
class _Finder:
    graph: Graph
    net: nn.Module
    units: list[Unit] = field(default_factory=list)

    def add(self, series: Series) -> None:
        for element in series:
            if isinstance(element, Leaf):
                self._unit("join" if element.node.is_join else "layer", (element,))
            elif isinstance(element, Lanes):
                self._lanes(element)
            elif (dense := _dense(element)) is not None:
                self.units.append(dense)
            elif len(element.nodes) <= LARGEST_CELL and not _is_spread(element.nodes):
                self._unit("cell", (element,))
            else:
                self._split(element.nodes, common_path(element.nodes))

    def _unit(self, kind: str, series: Series) -> None:
        nodes = series_nodes(series)
        self.units.append(Unit(kind, series, nodes, common_path(nodes)))

    def _lanes(self, lanes: Lanes) -> None:
        nodes = nodes_of(lanes)
        dips = len(lanes.join.shape) > 2 and any(
            len(n.shape) > 2 and 1 < n.px < lanes.join.px for n in nodes[:-1]
        )
        if lanes.identity and len(lanes.lanes) == 1 and dips and lanes.join.kind != "product":
            # A long way down and up again, such as that of a U-Net: its layers lie on the spine.
            self.add(lanes.lanes[0])
            self._unit("join", (Leaf(lanes.join),))
            return
        if len(nodes) > LARGEST_CELL and _is_spread(nodes):
            self._split(nodes, common_path(nodes))
            return
        kind = {"product": "gate", "concat": "lanes"}.get(lanes.join.kind, "")
        if not kind:
            kind = "residual" if residual_of(lanes) is not None else "lanes"
        self._unit(kind, (lanes,))

    def _split(self, nodes: Sequence[Node], prefix: str) -> None:
        """Units by the modules below `prefix`."""
        groups: list[tuple[str, list[Node]]] = []
        for node in nodes:
            name = _child(node.path, prefix)
            if not groups or groups[-1][0] != name:
                groups.append((name, []))
            groups[-1][1].append(node)
        for name, members in groups:
            module = self.net.get_submodule(name)
            inside = {child for node in members if (child := _child(node.path, name)) != name}
            if (
                len(members) > 1
                and name != prefix
                and len(inside) > 1
                and (isinstance(module, CONTAINERS) or len(members) > 4 * LARGEST_CELL)
            ):
                self._split(members, name)
            elif name == prefix and len(members) > 1:
                for node in members:
                    self.add((Leaf(node),))
            else:
                self._group(members)

    def _group(self, members: list[Node]) -> None:
        indices = [node.index for node in members]
        inside = set(indices)
        outside = {r for node in members for r in node.inputs if r not in inside}
        if len(members) == 1:
            self.add((Leaf(members[0]),))
            return
        read_later = any(
            r in inside and r != indices[-1]
            for node in self.graph.nodes[indices[-1] + 1 :]
            for r in node.inputs
        )
        if len(outside) == 1 and not read_later:
            series = sub_series(self.graph, indices, next(iter(outside)))
            if len(series) == 1:
                self.add(series)
            else:
                self._unit("chain", series)
            return
        self._unit("cell", (Cell(tuple(members)),))


def _is_spread(nodes: Sequence[Node]) -> bool:
    """Whether nodes belong to several modules, none of which runs most of them."""
    prefix = common_path(nodes)
    return len({_child(node.path, prefix) for node in nodes}) > 3 and len(nodes) > LARGEST_CELL


def _child(path: str, prefix: str) -> str:
    """The module one below `prefix` that `path` lies in; `prefix` if there is none."""
    rest = path[len(prefix) + 1 :] if prefix else path
    if not rest:
        return prefix
    name = rest.split(".", 1)[0]
    return f"{prefix}.{name}" if prefix else name


def _dense(cell: Cell) -> Unit | None:
    """A dense block: each layer reads the concatenation of all that was before."""
    joins = [node for node in cell.nodes if node.is_join]
    if len(joins) < 2 or any(node.kind != "concat" for node in joins):
        return None
    added: list[int] = []
    for before, after in pairwise(joins):
        new = set(after.inputs) - set(before.inputs)
        if not set(before.inputs) <= set(after.inputs) or len(new) != 1:
            return None
        added.append(next(iter(new)))
    chans = {node.index: node.chans for node in cell.nodes}
    growth = [chans.get(index, 0) for index in added]
    first, second = joins[-2].index, joins[-1].index
    layer = tuple(node for node in cell.nodes if first < node.index < second)
    if not layer or len(set(growth)) > 1:
        return None
    series: Series = (Lanes((tuple(Leaf(node) for node in layer),), True, joins[-1]),)
    return Unit("dense", series, cell.nodes, common_path(cell.nodes), repeats=len(joins), growth=growth[0])


def _linked(units: list[Unit]) -> tuple[Unit, ...]:
    """With the units that each reads."""
    owner = {node.index: place for place, unit in enumerate(units) for node in unit.nodes}
    linked: list[Unit] = []
    for place, unit in enumerate(units):
        reads = {owner[r] for node in unit.nodes for r in node.inputs if owner.get(r, place) != place}
        linked.append(replace(unit, reads=tuple(sorted(reads))))
    return tuple(linked)
