"""Figures of style `volumes`: feature maps as prisms, filters on the map before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import words
from .canvas import MARGIN, Canvas, fitted, number
from .figure import Figure, finish
from .frame import Captions, heading, legend
from .graph import Node
from .solids import Placed, Solid, draw_bridge, draw_rays, draw_solid
from .spine import main_family
from .stages import stacks_of
from .subject import Subject
from .tree import Cell, Lanes, Leaf, Series, nodes_of, residual_of, series_nodes
from .units import Stage, Unit

_WIDEST = 1500.0
_GAP = 34.0
_AXIS = 28.0
_SCALE = "height: log px, width: log channels"


@dataclass(frozen=True)
class Map:
    """A feature map and what makes it.

    Attributes:
        solid: its prism.
        operation: written above the gap before it.
        name: written below.
        params: of what makes it.
        macs: of what makes it.
        kernel: of a single convolution or pooling that makes it; else empty.
        path: the module that makes it.
        skip: how many maps before it a shortcut that arrives here begins; 0 for none.
        projected: whether that shortcut has operations.
    """

    solid: Solid
    operation: str
    name: str
    params: int
    macs: int
    kernel: tuple[int, ...]
    path: str
    skip: int = 0
    projected: bool = False


Rows = list[tuple[list[int], list[float]]]


def draw_volumes(subjects: Sequence[Subject], theme: str, level: str) -> Figure:
    """The figure of networks under one another, on one scale; `level` says what one prism stands for."""
    canvas = Canvas()
    laid = [_laid(subject, level) for subject in subjects]
    widest = max(xs[-1] + maps[row[-1]].solid.wide for maps, rows in laid for row, xs in rows)
    widest = max(widest, 520.0)
    only = subjects[0]
    title = words.listed([subject.title for subject in subjects])
    captions = Captions(title, only.facts if len(subjects) == 1 else ("one scale for all",), _SCALE)
    y = heading(canvas, captions, max(widest - MARGIN, 560.0))
    for subject, (maps, rows) in zip(subjects, laid, strict=True):
        if len(subjects) > 1:
            canvas.text("t14b", MARGIN, y, subject.title, "start")
            canvas.text("t11 m", MARGIN, y + 18, " · ".join(subject.facts[-5:]), "start")
            y += 36
        for row, xs in rows:
            y = _draw_row(canvas, [maps[k] for k in row], xs, row[0] > 0, subject, y, widest)
        y += 20
    legend(canvas, captions, y - 4, max(canvas.right, widest))
    shown = [f"{m.name} {words.shape(m.solid.sizes)}" for maps, _ in laid for m in maps[:40]]
    description = (
        f"{title} as volumes: each feature map is a prism, its height the logarithm of its px, its "
        f"width that of its channels. {'; '.join(shown)}."
    )
    return finish(canvas, title, description, theme)


def _laid(subject: Subject, level: str) -> tuple[list[Map], Rows]:
    """The maps of a network, and their places."""
    first = subject.sheet.request.shapes[0][1:]
    maps = [Map(Solid((("io", 1.0),), first), "", "input", 0, 0, (), "")]
    maps += _maps(subject, level)
    return maps, _rows(maps, subject)


def _maps(subject: Subject, level: str) -> list[Map]:
    found: list[Map] = []
    counter = 0
    stages = subject.stages
    for stage in stages:
        if level == "stage":
            found.append(_of_stage(stage))
            continue
        stacks = stacks_of(stage.units)
        blocks = sum(1 for stack in stacks if stack[0].is_block)
        place = 0
        for stack in stacks:
            unit = stack[0]
            if not unit.is_block:
                counter += 1
                found.append(_of_node(unit.last, counter))
                continue
            place += 1
            name = stage.name if blocks == 1 else f"{stage.name}.{place}"
            times = len(stack) * unit.repeats
            if level == "block" or unit.kind in ("dense", "cell"):
                found.append(_of_stack(stack, name))
                continue
            inner = _of_series(unit.series, counter)
            counter += len(inner)
            if times > 1:
                last = inner[-1]
                inner[-1] = replace(last, name=f"{last.name}, all ×{times}")
            found.extend(inner)
    if found:
        found[-1] = replace(found[-1], name="output")
    return found


def _of_stage(stage: Stage) -> Map:
    blocks = [unit for unit in stage.units if unit.is_block]
    many = sum(unit.repeats for unit in blocks) or len(stage.units)
    operation = words.plural(many, "block" if blocks else "layer")
    family = main_family(max(stage.units, key=lambda unit: (unit.macs, unit.params)))
    solid = Solid(((family, 1.0),), stage.shape)
    return Map(solid, operation, stage.name, stage.params, stage.macs, (), stage.path)


def _of_stack(stack: Sequence[Unit], name: str) -> Map:
    unit = stack[-1]
    times = len(stack) * unit.repeats
    what = {"residual": "residual", "dense": "dense", "cell": "cell", "lanes": "lanes"}.get(
        unit.kind, "block"
    )
    operation = f"{what} ×{times}" if times > 1 else what
    params, macs = sum(u.params for u in stack), sum(u.macs for u in stack)
    lanes = next((e for e in reversed(unit.series) if isinstance(e, Lanes)), None)
    slabs: tuple[tuple[str, float], ...] = ((main_family(unit), 1.0),)
    if unit.kind == "lanes" and lanes is not None and lanes.join.kind == "concat":
        slabs = _slabs(lanes)
    skip = int(unit.kind == "residual")
    shape, projected = unit.shape, unit.has_projection and len(stack) == 1
    return Map(Solid(slabs, shape), operation, name, params, macs, (), unit.path, skip, projected)


def _slabs(lanes: Lanes) -> tuple[tuple[str, float], ...]:
    """A part of the width for each lane of a concatenation."""
    ends = [series_nodes(lane) for lane in lanes.lanes]
    parts = [(_family(nodes), nodes[-1].chans) for nodes in ends]
    if lanes.identity:
        parts.insert(0, ("io", max(1, lanes.join.chans - sum(chans for _, chans in parts))))
    whole = sum(chans for _, chans in parts)
    return tuple((family, chans / whole) for family, chans in parts)


def _family(nodes: Sequence[Node]) -> str:
    return next((node.family for node in reversed(nodes) if not node.is_join), "io")


def _of_node(node: Node, counter: int) -> Map:
    letter = {"conv": "C", "linear": "F", "pool": "P" if node.label.startswith("max") else "S"}
    name = f"{letter.get(node.kind, 'L')}{counter}"
    operation = node.label.split(",")[0] + node.stride
    if node.kind == "conv" and not node.label.startswith(("dw", "sep", "up")):
        operation = f"conv {operation}"
    if node.groups > 1 and node.family == "conv":
        operation += f" g={node.groups}"
    if node.kind == "linear":
        operation = "fc"
    kernel = node.kernel if node.kind in ("conv", "pool") else ()
    family = "io" if node.is_join else node.family
    parts = node.groups if 1 < node.groups <= 4 and node.family == "conv" else 1
    return Map(
        Solid(((family, 1 / parts),) * parts, node.shape), operation if not node.is_join else node.kind, name,
        node.params, node.macs, kernel, node.path,
    )  # fmt: skip


def _of_series(series: Series, counter: int) -> list[Map]:
    """The maps of a block, along its main lane."""
    found: list[Map] = []
    for element in series:
        if isinstance(element, Leaf):
            found.append(_of_node(element.node, counter + len(found) + 1))
            continue
        found.extend(_of_element(element, counter + len(found)))
    return found


def _of_element(element: Lanes | Cell, counter: int) -> list[Map]:
    nodes = nodes_of(element)
    params, macs = sum(node.params for node in nodes), sum(node.macs for node in nodes)
    if isinstance(element, Cell):
        solid = Solid(((_family(nodes), 1.0),), nodes[-1].shape)
        return [Map(solid, "cell", f"L{counter + 1}", params, macs, (), nodes[-1].path)]
    residual = residual_of(element)
    if element.join.kind == "product":
        solid = Solid((("gate", 1.0),), element.join.shape)
        return [Map(solid, "gate", f"G{counter + 1}", params, macs, (), element.join.path)]
    if residual is None or len(residual.main) != 1:
        slabs = _slabs(element) if element.join.kind == "concat" else ((_family(nodes), 1.0),)
        what = words.plural(len(element.lanes), "lane")
        return [
            Map(
                Solid(slabs, element.join.shape), what, f"L{counter + 1}", params, macs, (), element.join.path
            )
        ]
    inner = _of_series(residual.main[0], counter)
    last = inner[-1]
    extra = series_nodes(residual.projection) if residual.projection is not None else ()
    params = last.params + sum(node.params for node in extra)
    macs = last.macs + sum(node.macs for node in extra)
    inner[-1] = replace(last, params=params, macs=macs, skip=len(inner), projected=bool(extra))
    if element.join.kind == "concat":
        inner.append(Map(Solid(_slabs(element), element.join.shape), "concat", f"L{counter + len(inner) + 1}",
                         0, 0, (), element.join.path, 0))  # fmt: skip
    return inner


def _texts(item: Map, subject: Subject) -> list[tuple[str, str]]:
    """What is written below a map."""
    texts = [("t12b", item.name)]
    if "shapes" in subject.show:
        texts.append(("t12", words.shape(item.solid.sizes)))
    if item.params and "params" in subject.show:
        texts.append(("t11 m", f"{_exact(item.params)} params"))
    if item.macs and "macs" in subject.show:
        texts.append(("t11 m", f"{words.count(item.macs)} MACs"))
    return texts


def _exact(value: int) -> str:
    return f"{value:,}" if value < 1_000_000 else words.count(value)


def _rows(maps: Sequence[Map], subject: Subject) -> Rows:
    """Maps in rows, with their left edges."""
    rows: Rows = []
    half_before = edge = middle = 0.0
    for k, item in enumerate(maps):
        half = fitted(_texts(item, subject), 5) / 2
        wide = item.solid.wide
        if rows:
            x = max(edge + _GAP, middle + half_before + half - wide / 2)
            operation = fitted([("t11b", item.operation)], 8)
            x = max(x, middle + operation - wide / 2)
        else:
            x = MARGIN + max(0.0, half - wide / 2)
        if not rows or x + max(wide, wide / 2 + half) > _WIDEST:
            operation = fitted([("t11b", item.operation)], 0)
            x = MARGIN + max(40.0 if rows else 16.0, half - wide / 2, operation - wide / 2 + 8)
            rows.append(([], []))
        rows[-1][0].append(k)
        rows[-1][1].append(x)
        half_before, edge, middle = half, x + wide, x + wide / 2
    return rows


def _draw_row(
    canvas: Canvas,
    row: Sequence[Map],
    xs: Sequence[float],
    goes_on: bool,
    subject: Subject,
    y: float,
    widest: float,
) -> float:
    """Draws one row; returns its lower edge."""
    levels = max((item.skip for item in row), default=0)
    arcs = 26.0 if levels else 0.0
    tall = max(item.solid.tall for item in row)
    axis = y + _AXIS
    middle = axis + 16 + arcs + tall / 2
    placed = [Placed(item.solid, x, middle) for item, x in zip(row, xs, strict=True)]
    for item, place in zip(row, placed, strict=True):
        with canvas.group(item.path, f"{item.operation}: {item.path}" if item.path else "input"):
            draw_solid(canvas, place)
    for k in range(1, len(row)):
        _draw_between(canvas, row[k], placed[k - 1], placed[k], axis)
    if goes_on:
        _draw_entry(canvas, row[0], placed[0], axis)
    canvas.line("hair", (MARGIN, axis), (max(widest, placed[-1].x + placed[-1].solid.wide), axis))
    for k, item in enumerate(row):
        if item.skip and k - item.skip >= 0:
            _draw_skip(canvas, placed[k - item.skip], placed[k], "skipd" if item.projected else "skip")
    bottom = middle + tall / 2 + 24
    lines = 0
    for item, place in zip(row, placed, strict=True):
        texts = _texts(item, subject)
        lines = max(lines, len(texts))
        for k, (style, text) in enumerate(texts):
            canvas.text(style, place.middle, bottom + (0, 18, 35, 50)[k], text)
    return bottom + (0, 18, 35, 50)[max(0, lines - 1)] + 30


def _draw_between(canvas: Canvas, item: Map, before: Placed, after: Placed, axis: float) -> None:
    x = (before.middle + after.middle) / 2
    canvas.text("t11b", x, axis - 12, item.operation)
    canvas.path("joinl", f"M{number(x)} {number(axis - 4)}v8")
    if after.solid.is_vector:
        draw_bridge(canvas, before, after)
    elif item.kernel and not before.solid.is_vector and len(before.solid.sizes) > 2:
        draw_rays(canvas, before, after, item.kernel)


def _draw_entry(canvas: Canvas, item: Map, after: Placed, axis: float) -> None:
    """What makes the first map of a further row."""
    canvas.text("t11b", MARGIN, axis - 12, item.operation, "start")
    canvas.line("flow", (MARGIN, after.y), (after.x - 16, after.y))
    canvas.head("flowh", after.x - 11, after.y, 1, 0)


def _draw_skip(canvas: Canvas, before: Placed, after: Placed, cls: str) -> None:
    """A shortcut over maps, from one's upper edge to another's."""
    canvas.marks[cls] = None
    x0, y0 = before.middle, before.y - before.solid.tall / 2
    x1, y1 = after.middle, after.y - after.solid.tall / 2
    level = min(y0, y1) - 18
    n = number
    canvas.path(
        cls,
        f"M{n(x0)} {n(y0 - 2)}V{n(level + 8)}Q{n(x0)} {n(level)} {n(x0 + 8)} {n(level)}H{n(x1 - 8)}"
        f"Q{n(x1)} {n(level)} {n(x1)} {n(level + 8)}V{n(y1 - 8)}",
    )
    canvas.head("skiph", x1, y1 - 2, 0, 1)
