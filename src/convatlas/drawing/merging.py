"""Units that belong together: the layers of one module, the parts of a cell, the layers of a dense block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from .graph import Graph, common_path
from .tree import Cell, Lanes, series_nodes
from .units import Unit

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LONGEST_CHAIN = 30


def merged_dense(units: list[Unit]) -> list[Unit]:
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


def merged_chains(units: list[Unit], graph: Graph, net: nn.Module) -> list[Unit]:
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
        if len(run) > 1 and whole and len(nodes) <= _LONGEST_CHAIN:
            series = tuple(element for unit in run for element in unit.series)
            merged.append(Unit("chain", series, nodes, path or ""))
            place += len(run)
        else:
            merged.append(units[place])
            place += 1
    return merged


def merged_cells(units: list[Unit], graph: Graph, net: nn.Module) -> list[Unit]:
    """Units of one module whose like is a cell elsewhere, as one cell."""
    cells = {type(net.get_submodule(unit.path)) for unit in units if unit.kind == "cell" and unit.path}
    cells = {kind for kind in cells if not issubclass(kind, CONTAINERS)}
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
            plain = type(module) in CONTAINERS or type(module) in inner
            if many[prefix] > 1 and not plain and prefix not in head and classes[type(module)] > 1:
                found[node.path] = prefix
                break
    return found
