"""Figures of style `graph`: the wiring of one module, or of a network by its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convatlas.errors import nearest

from . import words
from .canvas import MARGIN, Canvas, fitted
from .dense import MOST_DENSE, DensePiece, dense_piece
from .figure import DrawingError, Figure, finish
from .frame import Captions, heading, legend
from .graph import Graph, Node, common_path
from .outside import unit_piece
from .pen import Pen, Style, inset_style
from .pieces import Fan, Piece
from .pills import with_pills
from .spine import main_family
from .stages import stacks_of
from .subject import Subject
from .towers import split_towers
from .tree import Cell, Lanes, decompose, series_nodes, sub_series
from .units import Unit

_WIDEST = 1500.0
_LANE_BAR = 28.0
_KINDS = {"residual": "residual", "dense": "dense", "cell": "cell", "lanes": "lanes", "gate": "gated"}


@dataclass(frozen=True)
class Panel:
    """One wiring, laid out.

    Attributes:
        title: of the network.
        name: of what is drawn.
        facts: for the subtitle.
        unit: what is drawn.
        piece: its drawing.
        style: sizes of its boxes.
        source: shape of what enters.
        whole: multiply-adds of all of it.
    """

    title: str
    name: str
    facts: tuple[str, ...]
    unit: Unit
    piece: Piece
    style: Style
    source: tuple[int, ...]
    whole: int

    @property
    def cross(self) -> float:
        """Across the flow."""
        return self.piece.up + self.piece.down

    @property
    def lanes(self) -> Lanes | None:
        """Its lanes, if it consists of nothing else and they are concatenated."""
        only = self.unit.series[0] if len(self.unit.series) == 1 else None
        return only if isinstance(only, Lanes) and only.join.kind == "concat" and not only.identity else None


def draw_wiring(subjects: Sequence[Subject], modules: Sequence[str], theme: str, level: str) -> Figure:
    """The figure of modules side by side, or of a network's blocks or stages.

    Args:
        subjects: the networks.
        modules: the path of a module in each; "" for all of it.
        theme: light, dark or print.
        level: what a box stands for, where no module is named.

    Raises:
        DrawingError: if a network has no such module, or the module runs nothing.
    """
    panels = [
        _module_panel(subject, path) if path else _network_panel(subject, level)
        for subject, path in zip(subjects, modules, strict=True)
    ]
    panels = _aligned(panels)
    canvas = Canvas()
    if len(panels) == 1:
        only = panels[0]
        title = only.title if only.name == only.title else f"{only.title}, {only.name}"
        captions = Captions(title, only.facts)
    else:
        captions = _shared_captions(panels)
    wide = sum(_panel_width(panel) for panel in panels) + 64.0 * (len(panels) - 1)
    top = heading(canvas, captions, max(wide, 520.0))
    x, bottom = float(MARGIN), top
    most = max((_lane_costs(panel.lanes)[1] for panel in panels if panel.lanes is not None), default=0)
    for place, panel in enumerate(panels):
        if place:
            canvas.line("hair", (x - 32, top - 8), (x - 32, top))
        bottom = max(bottom, _draw_panel(canvas, panel, x, top, most, titled=len(panels) > 1))
        x += _panel_width(panel) + 64
    for place in range(1, len(panels)):
        edge = MARGIN + sum(_panel_width(p) + 64 for p in panels[:place]) - 32
        canvas.line("hair", (edge, top - 8), (edge, bottom))
    if len(panels) == 2:
        bottom = _draw_ratio(canvas, panels[0], panels[1], bottom + 32)
    legend(canvas, captions, bottom + 34, max(canvas.right, 520.0))
    return finish(canvas, captions.title, _description(panels), theme)


def _shared_captions(panels: Sequence[Panel]) -> Captions:
    kinds = list(dict.fromkeys(panel.name for panel in panels))
    facts = tuple(dict.fromkeys(panel.facts[0] for panel in panels))
    return Captions(words.listed(kinds), (*facts, "MACs in the boxes"))


def _aligned(panels: list[Panel]) -> list[Panel]:
    """Panels of lanes with equal rows, and channels on one scale."""
    fans = [panel.piece for panel in panels if isinstance(panel.piece, Fan)]
    if len(fans) != len(panels):
        return panels
    inner = max(fan.inner for fan in fans)
    scale = min(fan.broad / max(1, sum(n for _, _, n in fan.segments)) for fan in fans)
    made = [replace(fan, straight=True, inner=inner, scale=scale) for fan in fans]
    return [replace(panel, piece=fan) for panel, fan in zip(panels, made, strict=True)]


def _description(panels: Sequence[Panel]) -> str:
    parts = [
        f"{panel.title}: {words.plural(sum(1 for n in panel.unit.nodes if not n.is_join), 'operation')} from "
        f"{words.shape(panel.source)} to {words.shape(panel.unit.shape)}, {words.count(panel.whole)} MACs"
        for panel in panels
    ]
    return f"Wiring. {'; '.join(parts)}."


def _module_panel(subject: Subject, path: str) -> Panel:
    nodes = [n for n in subject.graph.nodes if n.path == path or n.path.startswith(f"{path}.")]
    if not nodes:
        known = {p for p, _ in subject.sheet.request.net.named_modules() if p}
        why = "runs no operation that is drawn" if path in known else "is not in the network"
        raise DrawingError(f"`module`={path!r} {why}; nearest: {nearest(path, known - {path})}")
    unit, before = _unit_of(subject, nodes)
    facts = [f"module {path} of {subject.title}", f"input {words.shape(_source(subject, unit))}"]
    facts += [f"{words.count(unit.params)} parameters", f"{words.count(unit.macs)} MACs"]
    return _panel(subject, unit, before, _class_name(subject, path), tuple(facts))


def _class_name(subject: Subject, path: str) -> str:
    name = type(subject.sheet.request.net.get_submodule(path)).__name__
    return path if name in ("Sequential", "ModuleList", "ModuleDict") else name


def _unit_of(subject: Subject, nodes: list[Node]) -> tuple[Unit, Unit | None]:
    """The nodes as a unit, with the unit before it."""
    first, last = nodes[0].index, nodes[-1].index
    before: Unit | None = None
    for unit in subject.units:
        if (unit.nodes[0].index, unit.last.index) == (first, last):
            return unit, before
        if unit.last.index < first:
            before = unit
    inside = {node.index for node in nodes}
    outside = {read for node in nodes for read in node.inputs if read not in inside}
    if len(outside) < 2:
        series = sub_series(subject.graph, sorted(inside), next(iter(outside), None))
        return Unit("chain", series, tuple(nodes), common_path(nodes)), before
    return Unit("cell", (Cell(tuple(nodes)),), tuple(nodes), common_path(nodes)), before


def _source(subject: Subject, unit: Unit) -> tuple[int, ...]:
    inside = {node.index for node in unit.nodes}
    reads = [read for node in unit.nodes for read in node.inputs if read not in inside]
    return subject.graph.nodes[max(reads)].shape if reads else ()


def _panel(subject: Subject, unit: Unit, before: Unit | None, name: str, facts: tuple[str, ...]) -> Panel:
    unit = replace(unit, series=with_pills(unit.series))
    nodes = series_nodes(unit.series)
    detail = next((row for row in ("macs", "params") if row in subject.show), "shape")
    style = inset_style(nodes, detail=detail)
    piece: Piece
    if unit.kind == "dense" and unit.repeats <= MOST_DENSE:
        piece = dense_piece(unit, style)
    else:
        piece = unit_piece(unit, style, before, subject, names=True)
    panel = Panel(subject.title, name, facts, unit, piece, style, _source(subject, unit), unit.macs)
    if panel.lanes is not None or (piece.length > _WIDEST and not isinstance(piece, DensePiece)):
        style = inset_style(nodes, vertical=True, detail=detail)
        panel = replace(panel, piece=unit_piece(unit, style, before, subject), style=style)
    return panel


def _network_panel(subject: Subject, level: str) -> Panel:
    towers = split_towers(subject.graph) if level == "block" else None
    graph = _coarse(subject, level) if towers is None else towers[0]
    facts = subject.facts
    if towers is not None:
        facts = (*facts, f"{towers[1]} towers; a layer that reads all of them has an arrow from each")
    series = decompose(graph)[1:]
    nodes = graph.nodes[1:]
    unit = Unit("chain", series, nodes, "")
    style = inset_style(nodes, vertical=True)
    piece = unit_piece(unit, style, None, subject)
    return Panel(
        subject.title,
        subject.title,
        facts,
        unit,
        piece,
        style,
        graph.nodes[0].shape,
        subject.sheet.macs,
    )


def _coarse(subject: Subject, level: str) -> Graph:
    """A graph with a node for each stack of blocks, or for each stage."""
    inputs = [unit for unit in subject.units if unit.last.kind == "input"]
    groups: list[tuple[str, tuple[Unit, ...]]] = [(unit.last.label, (unit,)) for unit in inputs]
    for stage in subject.stages:
        if level == "stage":
            groups.append((stage.name, stage.units))
        else:
            groups.extend((_stack_name(stack), stack) for stack in stacks_of(stage.units))
    owner = {node.index: k for k, (_, units) in enumerate(groups) for unit in units for node in unit.nodes}
    nodes = tuple(_coarse_node(k, name, units, owner) for k, (name, units) in enumerate(groups))
    outputs = tuple(owner[o] for o in subject.graph.outputs if o in owner)
    return Graph(nodes, outputs)


def _coarse_node(k: int, name: str, units: Sequence[Unit], owner: dict[int, int]) -> Node:
    nodes = [node for unit in units for node in unit.nodes]
    last = nodes[-1]
    reads = sorted({owner[r] for node in nodes for r in node.inputs if owner.get(r, k) != k})
    joins = len(units) == 1 and units[0].kind == "join"
    family = main_family(max(units, key=lambda unit: (unit.macs, unit.params)))
    return Node(
        k, common_path(nodes) or last.path, last.kind if joins or last.kind == "input" else "conv",
        "io" if last.kind == "input" else family, name, last.shape, tuple(reads),
        params=sum(n.params for n in nodes), macs=sum(n.macs for n in nodes), row=last.row,
    )  # fmt: skip


def _stack_name(stack: Sequence[Unit]) -> str:
    unit = stack[0]
    if not unit.is_block:
        return unit.last.text
    times = len(stack) * unit.repeats
    factor = f" ×{times}" if times > 1 else ""
    return f"{_KINDS.get(unit.kind, 'block')}{factor}, {unit.last.chans}"


def _panel_width(panel: Panel) -> float:
    if not panel.style.vertical:
        return panel.piece.length + 2 * _end_room(panel)
    return max(panel.cross, 260.0, fitted([("t14b", panel.title)], 0) + 120)


def _end_room(panel: Panel) -> float:
    ends = [("t12b", words.shape(panel.source)), ("t12b", words.shape(panel.unit.shape))]
    return fitted(ends, 8) + 24


def _draw_panel(canvas: Canvas, panel: Panel, x: float, top: float, most: int, *, titled: bool) -> float:
    width = _panel_width(panel)
    if titled:
        canvas.text("t14b", x, top + 4, panel.title, "start")
        canvas.text("t14b", x + width, top + 4, f"{words.count(panel.whole)} MACs", "end")
        top += 26
    if not panel.style.vertical:
        return _draw_across(canvas, panel, x, top)
    return _draw_down(canvas, panel, x, top, width, most)


def _draw_across(canvas: Canvas, panel: Panel, x: float, top: float) -> float:
    """From left to right, between boxes that hold the shapes of input and output."""
    middle = top + max(panel.piece.up, 26) + 4
    pen = Pen(canvas, panel.style, x, middle)
    room = _end_room(panel)
    for at, shape in ((0.0, panel.source), (room + panel.piece.length + 24, panel.unit.shape)):
        canvas.rect("io", x + at, middle - 22, room - 24, 44)
        canvas.text("t12b", x + at + (room - 24) / 2, middle, words.shape(shape))
    pen.arrow((room - 24, 0), (room, 0), head=not panel.piece.opens)
    panel.piece.draw(pen, room, 0)
    pen.arrow((room + panel.piece.length, 0), (room + panel.piece.length + 24, 0))
    return middle + max(panel.piece.down, 26)


def _draw_down(canvas: Canvas, panel: Panel, x: float, top: float, width: float, most: int) -> float:
    """From top to bottom: a bar of the input, the wiring, the output, the cost of each lane."""
    centre = x + (width - panel.cross) / 2 + panel.piece.down
    wide = panel.cross if panel.lanes is not None else max(panel.style.wide, 128.0)
    left = x + (width - panel.cross) / 2 if panel.lanes is not None else centre - wide / 2
    canvas.rect("io", left, top, wide, _LANE_BAR)
    canvas.text("t12b", left + wide / 2, top + _LANE_BAR / 2, words.shape(panel.source))
    pen = Pen(canvas, panel.style, centre, top + _LANE_BAR)
    lead = 0.0 if isinstance(panel.piece, Fan) else 20.0
    if lead:
        pen.arrow((0, 0), (lead, 0), head=not panel.piece.opens)
    panel.piece.draw(pen, lead, 0)
    end = lead + panel.piece.length
    y = top + _LANE_BAR + end
    word = "concatenated: " if panel.lanes is not None else "output: "
    if panel.lanes is None:
        pen.arrow((end, 0), (end + 20, 0))
    canvas.text(
        "t12b", centre, y + (24 if panel.lanes is not None else 34), word + words.shape(panel.unit.shape)
    )
    y += 46
    return _draw_costs(canvas, panel.lanes, x, y + 20, width, most) if panel.lanes is not None else y


def _lane_costs(lanes: Lanes | None) -> tuple[list[tuple[str, int]], int]:
    """Each lane's name and multiply-adds, and the most of them."""
    costs: list[tuple[str, int]] = []
    for lane in lanes.lanes if lanes is not None else ():
        nodes = series_nodes(lane)
        main = max(nodes, key=lambda node: (node.kind == "pool", max(node.kernel, default=0)))
        name = "pool" if main.kind == "pool" else main.label.split(",")[0]
        costs.append((name, sum(node.macs for node in nodes)))
    return costs, max((macs for _, macs in costs), default=0)


def _draw_costs(canvas: Canvas, lanes: Lanes, x: float, y: float, width: float, most: int) -> float:
    costs, _ = _lane_costs(lanes)
    canvas.text("t11 m", x, y, "MACs of each lane", "start")
    names = fitted([("t11", name) for name, _ in costs], 0) + 12
    numbers = fitted([("t11b", words.count(macs)) for _, macs in costs], 0) + 16
    track = width - names - numbers
    for name, macs in costs:
        y += 24
        canvas.text("t11", x + names - 12, y, name, "end")
        canvas.rect("track", x + names, y - 5, track, 10, 2)
        length = track * macs / most if most else 0.0
        if length >= 0.5:
            canvas.rect("bar", x + names, y - 5, length, 10, 2)
        canvas.text("t11b", x + width, y, words.count(macs), "end")
    return y + 12


def _draw_ratio(canvas: Canvas, first: Panel, second: Panel, y: float) -> float:
    """What the second costs, against the first."""
    if not first.whole or not second.whole or first.whole == second.whole:
        return y - 20
    less = first.whole > second.whole
    ratio = first.whole / second.whole if less else second.whole / first.whole
    word = "fewer" if less else "more"
    text = f"{ratio:.3g} times {word} multiply-adds"
    if first.unit.last.chans != second.unit.last.chans:
        text += f", and {second.unit.last.chans} channels instead of {first.unit.last.chans}"
    canvas.text("t12", MARGIN, y, f"{text}.", "start")
    return y
