"""A sheet in lines: stages, blocks and operations, each with its numbers. What the page shows as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from convatlas.drawing.subject import Subject
from convatlas.drawing.tree import Lanes, residual_of, series_nodes
from convatlas.drawing.units import Unit
from convatlas.sizing import ReceptiveField, Sheet
from convatlas.sizing.layers import Layer, layers_of
from convatlas.sizing.operation import VIEW

from . import phrases


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        key: the module's path, which is also what a figure's group is called; unique in a sheet.
        kind: stage, block or operation.
        name: what is shown first.
        operation: what it does, in words.
        shape: of its output, without the batch.
        params: parameters.
        macs: multiply-adds.
        macs_counted: whether these are all.
        bytes_written: bytes that it writes.
        field: receptive field of its output.
        formulas: its arithmetic: title and lines of each operation that has one.
        unread: whether an operation skips positions of its input.
        mark: what stands for it in the figure: conv, pool, thin, linear, add, and so on.
        skip: of a block: "", identity or projection.
        branches: of a block, its parallel lanes.
        strided: whether the map gets smaller.
        lane: of an operation of an open block: main, skip or a number of a lane.
        opens: whether it can be opened.
        is_open: whether it is.
    """

    key: str
    kind: str
    name: str
    operation: str
    shape: tuple[int, ...]
    params: int
    macs: int
    macs_counted: bool
    bytes_written: int
    field: ReceptiveField | None
    formulas: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unread: bool = False
    mark: str = ""
    skip: str = ""
    branches: int = 0
    strided: bool = False
    lane: str = "main"
    opens: bool = False
    is_open: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """A block or a layer that stands alone, with its operations.

    Attributes:
        unit: as figures have it.
        layers: its operations.
        key: unique in the sheet.
    """

    unit: Unit
    layers: tuple[Layer, ...]
    key: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A stage.

    Attributes:
        name: stem, stage 1, ..., head.
        parts: its blocks.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All of its operations."""
        return tuple(layer for part in self.parts for layer in part.layers)


def sections_of(sheet: Sheet) -> tuple[Section, ...]:
    """Every operation of a sheet, in its block, in its stage: sums of lines are the sheet's totals."""
    stages = Subject(sheet, "").stages
    units = [unit for stage in stages for unit in stage.units]
    members = _members(sheet, units)
    keys: set[str] = set()
    sections: list[Section] = []
    place = 0
    for stage in stages:
        parts: list[Part] = []
        for unit in stage.units:
            if members[place]:
                parts.append(Part(unit, tuple(members[place]), _key(unit, members[place], keys)))
            place += 1
        if parts:
            sections.append(Section(stage.name, tuple(parts)))
    return tuple(sections) or _without_units(sheet)


def _members(sheet: Sheet, units: Sequence[Unit]) -> list[list[Layer]]:
    """For each unit its operations: those of its nodes, and norms, activations and views next to them."""
    of_row = {node.row: place for place, unit in enumerate(units) for node in unit.nodes if node.row >= 0}
    layers = layers_of(sheet)
    own = [next((of_row[row.index] for row in layer.rows if row.index in of_row), None) for layer in layers]
    following: list[int | None] = [None] * len(layers)
    after: int | None = None
    for i in reversed(range(len(layers))):
        after = i if own[i] is not None else after
        following[i] = after
    members: list[list[Layer]] = [[] for _ in units]
    before: int | None = None
    for i, layer in enumerate(layers):
        if own[i] is not None:
            before = i
        chosen = _nearer(layers, i, before, following[i])
        if chosen is not None:
            members[own[chosen] or 0].append(layer)
    return members


def _nearer(layers: Sequence[Layer], i: int, before: int | None, after: int | None) -> int | None:
    """Of the operations around one, that in whose module it is deeper; the one before where equal."""
    if before is None or after is None:
        return after if before is None else before
    path = layers[i].path
    shared_before = _shared(path, layers[before].path)
    return after if _shared(path, layers[after].path) > shared_before else before


def _shared(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a.split("."), b.split("."), strict=False):
        if x != y:
            break
        count += 1
    return count


def _key(unit: Unit, layers: Sequence[Layer], taken: set[str]) -> str:
    """The path of the module that runs all of it, with a number where another has the same."""
    paths = [layer.path for layer in layers]
    key = unit.path if unit.is_block else phrases.common(paths)
    if not key or key in taken:
        key = unit.path or paths[0] or layers[0].operation
    base, number = key, 2
    while key in taken:
        key, number = f"{base}#{number}", number + 1
    taken.add(key)
    return key


def _without_units(sheet: Sheet) -> tuple[Section, ...]:
    """A network of which no figure can be drawn: one section of all operations."""
    layers = layers_of(sheet)
    if not layers:
        return ()
    node = Subject(sheet, "").graph.nodes[:1]
    return (Section("network", (Part(Unit("layer", (), node, ""), layers, "network"),)),)


def lines_of(sections: Sequence[Section], level: str, opened: frozenset[str]) -> list[Line]:
    """The lines of a level.

    Args:
        sections: of a sheet.
        level: stages, blocks or operations.
        opened: keys of blocks of which the operations are shown.
    """
    lines: list[Line] = []
    for section in sections:
        named = section.name.startswith("stage")
        if level == "stages" or (named and len(section.parts) > 1) or (named and level == "operations"):
            lines.append(_stage_line(section))
        if level == "stages":
            continue
        for part in section.parts:
            inside = part.layers
            is_open = len(inside) > 1 and (level == "operations" or part.key in opened)
            lines.append(_part_line(part, is_open))
            if is_open:
                lanes = _lanes(part.unit)
                lines.extend(_layer_line(part, layer, lanes, i) for i, layer in enumerate(inside))
    return lines


def _numbers(layers: Sequence[Layer]) -> dict[str, object]:
    working = [layer for layer in layers if layer.kind != VIEW] or list(layers)
    return {
        "params": sum(layer.params for layer in layers),
        "macs": sum(layer.macs for layer in layers),
        "macs_counted": all(layer.macs_counted for layer in layers),
        "bytes_written": sum(layer.bytes_written for layer in layers),
        "field": working[-1].receptive_field,
        "unread": any(row.unread for layer in layers for row in layer.rows),
    }


def _stage_line(section: Section) -> Line:
    units = [part.unit for part in section.parts]
    return Line(
        key=section.name,
        kind="stage",
        name=section.name[:1].upper() + section.name[1:],
        operation=phrases.stage(units),
        shape=units[-1].shape,
        mark=phrases.mark_of_unit(units[-1]),
        strided=any(unit.strided for unit in units),
        skip="identity" if any(unit.kind == "residual" for unit in units) else "",
        **_numbers(section.layers),  # pyright: ignore[reportArgumentType]
    )


def _part_line(part: Part, is_open: bool) -> Line:
    unit, layers = part.unit, part.layers
    residual = unit.kind == "residual"
    return Line(
        key=part.key,
        kind="block",
        name=part.key,
        operation=phrases.unit(unit, [phrases.layer(layer) for layer in layers]),
        shape=unit.shape,
        formulas=tuple(_formulas(layer, part.key) for layer in layers if _formulas(layer, part.key)[1]),
        mark=phrases.mark_of_unit(unit),
        skip=("projection" if unit.has_projection else "identity") if residual else "",
        branches=_branches(unit),
        strided=unit.strided,
        opens=len(layers) > 1,
        is_open=is_open,
        **_numbers(layers),  # pyright: ignore[reportArgumentType]
    )


def _layer_line(part: Part, layer: Layer, lanes: dict[int, str], place: int) -> Line:
    path = layer.path.removeprefix(f"{part.key}.")
    rows = [row.index for row in layer.rows]
    return Line(
        key=f"{layer.path or part.key}:{rows[0]}",
        kind="operation",
        name=path if path and path != part.key else phrases.layer(layer),
        operation=phrases.layer(layer),
        shape=tuple(layer.output_shape[1:]),
        formulas=tuple(found for found in [_formulas(layer, "")] if found[1]),
        mark=phrases.mark_of_layer(layer),
        strided=_is_strided(layer),
        lane=next((lanes[row] for row in rows if row in lanes), _lane_before(part, lanes, place)),
        **_numbers([layer]),  # pyright: ignore[reportArgumentType]
    )


def _formulas(layer: Layer, key: str) -> tuple[str, tuple[str, ...]]:
    lines = tuple(line for row in layer.rows for line in row.formulas)
    return layer.path.removeprefix(f"{key}.") or layer.operation, lines


def _is_strided(layer: Layer) -> bool:
    return layer.kind in ("conv", "pool") and " /" in layer.operation


def _branches(unit: Unit) -> int:
    if unit.kind not in ("lanes", "cell"):
        return 0
    found = [len(element.lanes) + element.identity for element in unit.series if isinstance(element, Lanes)]
    return max(found, default=3 if unit.kind == "cell" else 0)


def _lanes(unit: Unit) -> dict[int, str]:
    """For each row of a block's nodes, the lane that it lies in."""
    lanes: dict[int, str] = {}
    for element in unit.series:
        if not isinstance(element, Lanes):
            continue
        residual = residual_of(element)
        if residual is not None and residual.projection is not None:
            lanes.update({node.row: "skip" for node in series_nodes(residual.projection)})
            lanes.update({node.row: "main" for lane in residual.main for node in series_nodes(lane)})
        elif residual is None and len(element.lanes) > 1:
            for number, lane in enumerate(element.lanes):
                lanes.update({node.row: str(number) for node in series_nodes(lane)})
        lanes[element.join.row] = "main"
    return lanes


def _lane_before(part: Part, lanes: dict[int, str], place: int) -> str:
    """A norm or an activation lies in the lane of the module that it shares most of its path with."""
    path = part.layers[place].path
    best, found = 0, "main"
    for layer in part.layers[:place]:
        lane = next((lanes[row.index] for row in layer.rows if row.index in lanes), "")
        shared = _shared(path, layer.path)
        if lane and shared >= best:
            best, found = shared, lane
    return found
