"""Units with what they read from further back than the unit before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .canvas import fitted
from .cells import cell_piece
from .graph import Node
from .pen import Style
from .pieces import Piece, piece_of
from .subject import Subject
from .tree import Cell
from .units import Unit


def unit_piece(unit: Unit, style: Style, before: Unit | None, subject: Subject, names: bool = False) -> Piece:
    """The drawing of a unit, with boxes for what it reads from further back than the unit before it."""
    inside = {node.index for node in unit.nodes}
    near = {before.last.index} if before is not None else set[int]()
    far = {r for n in unit.nodes for r in n.inputs if r not in inside and r not in near}
    if far and unit.kind in ("cell", "join"):
        outside = sources(far, subject)
        room = fitted([(style.text, node.text) for node in outside.values()])
        style = replace(style, wide=max(style.wide, room))
        return cell_piece(Cell(unit.nodes), style, outside)
    return piece_of(unit.series, style, names=names)


def sources(reads: set[int], subject: Subject) -> Mapping[int, Node]:
    """Boxes for nodes that are read from elsewhere."""
    owner = {node.index: unit for unit in subject.units for node in unit.nodes}
    found: dict[int, Node] = {}
    for index in sorted(reads):
        node = subject.graph.nodes[index]
        name = node.label if node.kind == "input" else f"from {owner[index].path or node.text}"
        found[index] = Node(index, node.path, "input", "io", name, node.shape)
    return found
