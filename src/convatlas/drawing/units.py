"""Blocks and stages, recognised from the wiring and the tree of modules, never from names of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import nn

from .graph import Graph, Node, common_path
from .tree import (
    Cell,
    Element,
    Lanes,
    Leaf,
    Series,
    decompose,
    nodes_of,
    residual_of,
    series_nodes,
    sub_series,
)

# A part of the network whose wiring is no composition of series and lanes is one block up to this size.
LARGEST_CELL = 24
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LONGEST_CHAIN = 10


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


def find_units(graph: Graph, net: nn.Module) -> tuple[Unit, ...]:
    """The network's units in execution order; its inputs come first, as layers."""
    found = _Finder(graph, net)
    found.add(decompose(graph))
    units = _merged_chains(_merged_cells(found.units, graph, net), graph, net)
    return _linked(_merged_dense(units))


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
                and (isinstance(module, _CONTAINERS) or len(members) > 4 * LARGEST_CELL)
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


def _merged_dense(units: list[Unit]) -> list[Unit]:
    """Layers that are concatenated to what they read, one after another, as dense blocks."""
    merged: list[Unit] = []
    run: list[Unit] = []

    def close() -> None:
        if len(run) > 1:
            nodes = tuple(node for unit in run for node in unit.nodes)
            growth = run[-1].last.chans - run[-2].last.chans
            path = common_path(nodes)
            merged.append(Unit("dense", run[-1].series, nodes, path, repeats=len(run), growth=growth))
        else:
            merged.extend(run)
        run.clear()

    for place, unit in enumerate(units):
        grows = place > 0 and unit.last.chans > units[place - 1].last.chans
        key = _dense_key(unit) if grows else None
        if key is None or (run and key != _dense_key(run[-1])):
            close()
        if key is None:
            merged.append(unit)
        else:
            run.append(unit)
    close()
    return merged


def _dense_key(unit: Unit) -> tuple[object, ...] | None:
    lanes = unit.series[0] if len(unit.series) == 1 else None
    if (
        not isinstance(lanes, Lanes)
        or lanes.join.kind != "concat"
        or not lanes.identity
        or len(lanes.lanes) != 1
    ):
        return None
    return tuple((node.text, node.shape[1:]) for node in series_nodes(lanes.lanes[0]))


def _merged_chains(units: list[Unit], graph: Graph, net: nn.Module) -> list[Unit]:
    """Layers that one module of a repeated kind runs, such as a block without a shortcut, as one unit."""
    block_of = _block_modules(units, graph, net)
    merged: list[Unit] = []
    place = 0
    while place < len(units):
        path = block_of.get(units[place].last.path)
        run: list[Unit] = []
        while path and place + len(run) < len(units):
            unit = units[place + len(run)]
            if unit.kind not in ("layer", "gate", "join") or not _lies_in(unit, path):
                break
            run.append(unit)
        nodes = tuple(node for unit in run for node in unit.nodes)
        whole = path is not None and len(nodes) == sum(1 for n in graph.nodes if _below(n.path, path))
        if len(run) > 1 and whole and len(nodes) <= 3 * _LONGEST_CHAIN:
            series = tuple(element for unit in run for element in unit.series)
            merged.append(Unit("chain", series, nodes, path or ""))
            place += len(run)
        else:
            merged.append(units[place])
            place += 1
    return merged


def _merged_cells(units: list[Unit], graph: Graph, net: nn.Module) -> list[Unit]:
    """Units of one module whose like is a cell elsewhere, as one cell."""
    cells = {type(net.get_submodule(unit.path)) for unit in units if unit.kind == "cell" and unit.path}
    cells = {kind for kind in cells if not issubclass(kind, _CONTAINERS)}
    merged: list[Unit] = []
    place = 0
    while place < len(units):
        path = _module_of(units[place].path, cells, net)
        end = place
        while path and end < len(units) and _lies_in(units[end], path):
            end += 1
        run = units[place:end]
        if len(run) > 1:
            nodes = tuple(node for unit in run for node in unit.nodes)
            merged.append(Unit("cell", (Cell(nodes),), nodes, path))
            place = end
        else:
            merged.append(units[place])
            place += 1
    return merged


def _module_of(path: str, kinds: set[type[nn.Module]], net: nn.Module) -> str:
    """The outermost module around `path` whose class is one of these."""
    names = path.split(".") if path else []
    for k in range(1, len(names) + 1):
        prefix = ".".join(names[:k])
        if type(net.get_submodule(prefix)) in kinds:
            return prefix
    return ""


def _lies_in(unit: Unit, path: str) -> bool:
    return all(_below(node.path, path) for node in unit.nodes)


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


def _inner_classes(units: Sequence[Unit], net: nn.Module) -> set[type[nn.Module]]:
    """Classes of modules that lie within blocks: a part of a block is no block elsewhere."""
    found: set[type[nn.Module]] = set()
    for path, base in {(node.path, unit.path) for unit in units if unit.is_block for node in unit.nodes}:
        while path != base and path:
            found.add(type(net.get_submodule(path)))
            path = path.rpartition(".")[0]
    return found


def _block_modules(units: Sequence[Unit], graph: Graph, net: nn.Module) -> dict[str, str]:
    """For the path of each node, the innermost module of a repeated class that runs several convolutions."""
    inner = _inner_classes(units, net)
    many: Counter[str] = Counter()
    head: set[str] = set()
    for node in graph.nodes:
        names = node.path.split(".")
        for k in range(1, len(names) + 1):
            prefix = ".".join(names[:k])
            many[prefix] += node.kind == "conv"
            if node.kind == "linear" or len(node.shape) < 2:
                head.add(prefix)
    classes = Counter(type(net.get_submodule(path)) for path, convs in many.items() if path and convs > 1)
    found: dict[str, str] = {}
    for node in graph.nodes:
        names = node.path.split(".")
        for k in range(len(names), 0, -1):
            prefix = ".".join(names[:k])
            module = net.get_submodule(prefix) if prefix else net
            plain = type(module) in _CONTAINERS or type(module) in inner
            if many[prefix] > 1 and not plain and prefix not in head and classes[type(module)] > 1:
                found[node.path] = prefix
                break
    return found


def _linked(units: list[Unit]) -> tuple[Unit, ...]:
    """With the units that each reads."""
    owner = {node.index: place for place, unit in enumerate(units) for node in unit.nodes}
    linked: list[Unit] = []
    for place, unit in enumerate(units):
        reads = {owner[r] for node in unit.nodes for r in node.inputs if owner.get(r, place) != place}
        linked.append(replace(unit, reads=tuple(sorted(reads))))
    return tuple(linked)


def elements_of(unit: Unit) -> tuple[Element, ...]:
    """The elements of a unit's series."""
    return unit.series
