"""Genotypes of whole cell networks, and their text.

    0.sep5+1.sep3/1.sep5+1.sep3>1.2.3|0.sep5+1.sep7;cells=4;chans=44

is a normal cell, a reduction cell and what the network around them is like. A cell is its nodes, separated
by `/`; a node is its operations, separated by `+`; an operation is the state it reads, a dot and its name.
State 0 is the cell's input, 1 the input of the cell before, 2 + i the i-th node. After `>` stand the states
that are concatenated; without it, all nodes that no node reads. Without `|`, one cell does both.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from convatlas.blocks.cell import Edge, Genotype
from convatlas.errors import UnknownNameError, nearest

SHORT = {
    "identity": "id",
    "skip": "skip",
    "conv1x1": "conv1",
    "conv3x3": "conv3",
    "conv1x3_3x1": "conv1x3",
    "conv1x7_7x1": "conv1x7",
    "dilated3x3": "dil3",
    "dilated_separable3x3": "dilsep3",
    "dilated_separable5x5": "dilsep5",
    "separable3x3": "sep3",
    "separable5x5": "sep5",
    "separable7x7": "sep7",
    "mean3x3": "avg3",
    "max3x3": "max3",
    "max5x5": "max5",
    "max7x7": "max7",
}
"""The short name of each operation."""

LONG = {short: name for name, short in SHORT.items()} | {name: name for name in SHORT}

STEMS = ("nasnet", "darts")


class GenotypeError(ValueError):
    """A genotype that does not parse; the message says where, and what is allowed there."""


@dataclasses.dataclass(frozen=True)
class CellGenotype:
    """Two cells, and the network that they were published or found with.

    Args:
        normal: the cell that keeps the size.
        reduction: the cell that halves it; None where the normal cell, with stride 2, does.
        cells: N, normal cells in each stage; None leaves it to the network.
        chans: F, channels of each node in the first stage; None leaves it to the network.
        stem_chans: channels of the first convolution; None leaves it to the network.
        stem: "nasnet" (the first cell has no previous input; for ImageNet, two reduction cells are the stem)
            or "darts" (the stem is the first cell's both inputs; for ImageNet, three convolutions).
        counts_reduction: a reduction cell is one of the N cells of its stage.
        skip_reduction: the cell after a reduction takes its second input from before it, two cells back.

    Raises:
        ValueError: a count is below 1, or the stem is unknown.
    """

    normal: Genotype
    reduction: Genotype | None = None
    cells: int | None = None
    chans: int | None = None
    stem_chans: int | None = None
    stem: str = "nasnet"
    counts_reduction: bool = False
    skip_reduction: bool = False

    def __post_init__(self) -> None:
        """Checks the counts and the stem."""
        for name in ("cells", "chans", "stem_chans"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise GenotypeError(f"`{name}`={value!r}; expected a whole number of at least 1")
        if self.stem not in STEMS:
            raise GenotypeError(f"`stem`={self.stem!r}; allowed are {' and '.join(STEMS)}")

    @property
    def halving(self) -> Genotype:
        """The cell that halves the size."""
        return self.normal if self.reduction is None else self.reduction

    @property
    def text(self) -> str:
        """The text form, which `parse_genotype` reads."""
        cells = cell_text(self.normal)
        if self.reduction is not None:
            cells += f"|{cell_text(self.reduction)}"
        return cells + "".join(f";{name}={_plain(value)}" for name, value in self.options.items())

    @property
    def options(self) -> dict[str, Any]:
        """What differs from the defaults, beside the cells."""
        fields = [field for field in dataclasses.fields(self) if field.name not in ("normal", "reduction")]
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}

    def __str__(self) -> str:
        return self.text


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def loose_ends(nodes: tuple[tuple[Edge, ...], ...]) -> tuple[int, ...]:
    """The states of the nodes that no node reads."""
    read = {state for edges in nodes for _, state in edges}
    return tuple(state for state in range(2, len(nodes) + 2) if state not in read)


def cell_text(cell: Genotype) -> str:
    """The text of one cell."""
    nodes = "/".join("+".join(f"{state}.{SHORT[op]}" for op, state in edges) for edges in cell.nodes)
    if cell.concat == loose_ends(cell.nodes):
        return nodes
    return f"{nodes}>{'.'.join(map(str, cell.concat))}"


def parse_genotype(text: str) -> CellGenotype:
    """Reads the text of a genotype.

    Raises:
        GenotypeError: it does not parse; says where and what is allowed there.
    """
    cells, *options = text.strip().split(";")
    parts = cells.split("|")
    if len(parts) > 2:
        raise GenotypeError(f"genotype {text!r} has {len(parts)} cells; expected NORMAL or NORMAL|REDUCTION")
    normal = parse_cell(parts[0], "the normal cell")
    reduction = parse_cell(parts[1], "the reduction cell") if len(parts) == 2 else None
    return CellGenotype(normal, reduction, **_parse_options(options))


def _parse_options(items: list[str]) -> dict[str, Any]:
    known = {field.name: field for field in dataclasses.fields(CellGenotype)[2:]}
    values: dict[str, Any] = {}
    for item in items:
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in known:
            raise UnknownNameError(
                f"genotype: unknown setting {name!r}; nearest: {nearest(name, known)}; "
                f"allowed are {', '.join(known)}"
            )
        if name == "stem":
            values[name] = value
        elif not re.fullmatch(r"\d{1,6}", value):
            raise GenotypeError(f"genotype: `{name}`={value!r}; expected a whole number")
        else:
            values[name] = bool(int(value)) if known[name].default is False else int(value)
    return values


def parse_cell(text: str, where: str = "the cell") -> Genotype:
    """Reads the text of one cell.

    Args:
        text: nodes and, after `>`, the concatenated states.
        where: which cell it is, for messages.

    Raises:
        GenotypeError: it does not parse.
    """
    body, arrow, ends = text.strip().partition(">")
    nodes = tuple(_parse_node(node, i, where) for i, node in enumerate(body.split("/")))
    if not arrow:
        return Genotype(nodes, loose_ends(nodes))
    states = ends.strip().split(".")
    if not all(re.fullmatch(r"\d{1,3}", state) and int(state) < len(nodes) + 2 for state in states):
        raise GenotypeError(
            f"{where} concatenates {ends!r}; expected states of 0 to {len(nodes) + 1} with dots, such as 2.3"
        )
    return Genotype(nodes, tuple(map(int, states)))


def _parse_node(text: str, i: int, where: str) -> tuple[Edge, ...]:
    edges: list[Edge] = []
    for word in text.split("+"):
        match = re.fullmatch(r"\s*(\d{1,3})\.(\w+)\s*", word)
        place = f"{where}, node {i}"
        if match is None:
            raise GenotypeError(
                f"{place}: {word!r} is no operation; expected STATE.OPERATION, for example 0.sep3 "
                f"(states 0 to {i + 1}; operations {', '.join(LONG_FIRST)})"
            )
        if match[2] not in LONG:
            raise UnknownNameError(
                f"{place}: unknown operation {match[2]!r}; nearest: {nearest(match[2], LONG)}; "
                f"allowed are {', '.join(LONG_FIRST)}"
            )
        if int(match[1]) > i + 1:
            raise GenotypeError(f"{place} reads state {match[1]}; it may read 0 to {i + 1}")
        edges.append(Edge(LONG[match[2]], int(match[1])))
    return tuple(edges)


LONG_FIRST = tuple(SHORT.values())
