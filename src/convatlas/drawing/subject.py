"""What a figure is made of: a trace, its graph, its units and its stages, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from . import words
from .finding import find_units
from .graph import Graph, read_graph
from .separable import with_separable
from .stages import find_stages
from .units import Stage, Unit

if TYPE_CHECKING:
    from convatlas.sizing import Sheet

SHOWS = ("shapes", "params", "macs", "rf")


@dataclass(frozen=True)
class Subject:
    """One network, traced.

    Attributes:
        sheet: the trace.
        title: what it is called.
        note: said first in the subtitle; may be empty.
        show: which numbers are written.
    """

    sheet: Sheet
    title: str
    note: str = ""
    show: tuple[str, ...] = ("shapes", "params", "macs")

    @cached_property
    def graph(self) -> Graph:
        """The nodes that figures show."""
        return with_separable(read_graph(self.sheet))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Blocks and layers, the inputs among them."""
        return find_units(self.graph, self.sheet.request.net)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Stem, stages and head."""
        return find_stages(self.units)

    @property
    def input_shapes(self) -> str:
        """Such as `3×224×224`."""
        return " and ".join(words.shape(shape[1:]) for shape in self.sheet.request.shapes)

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """The subtitle's numbers, which are those of `size`."""
        facts = [
            f"input {self.input_shapes}",
            f"{words.total(self.sheet.params)} parameters",
            f"{words.total(self.sheet.macs)} MACs",
        ]
        depth = self.sheet.depth.longest
        if depth > 1:
            facts.append(f"{depth:,} weight layers on the longest path")
        unused = self.sheet.params - sum(node.params for node in self.graph.nodes)
        if unused:
            facts.append(f"{words.count(unused)} of the parameters are not used in inference")
        folded = _folded(self.graph)
        if folded:
            facts.append(f"{folded} belong to the operation before them")
        return (self.note, *facts) if self.note else tuple(facts)

    def receptive_field(self, rows: Sequence[int]) -> str:
        """Of the last of some rows, in px; an en dash where it is not defined."""
        fields = self.sheet.receptive_fields
        found = fields[rows[-1]] if rows and rows[-1] >= 0 else None
        if found is None or not found.size:
            return "–"
        if all(size is None for size in found.size):
            return "all"
        sizes = ["all" if size is None else f"{size}" for size in found.size]
        return sizes[0] if len(set(sizes)) == 1 else "×".join(sizes)


def _folded(graph: Graph) -> str:
    """Which kinds of operations are not drawn apart."""
    names = [name for node in graph.nodes for name in node.before]
    norm = "norm" in names
    activation = any(name != "norm" for name in names)
    if norm and activation:
        return "norm and activation"
    return "norms" if norm else ("activations" if activation else "")
