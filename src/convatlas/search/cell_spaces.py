"""Spaces of cells: those of NASNet and AmoebaNet, a tiny one, and that of NAS-Bench-201."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

from convatlas.blocks.cell import Edge, Genotype
from convatlas.blocks.cell201 import EDGES, OPERATIONS_201, Genotype201, parse_201
from convatlas.blocks.genotype import SHORT, CellGenotype, cell_text, loose_ends, parse_genotype
from convatlas.search.architecture import Choices, Space, SpaceError, Task, index_of
from convatlas.search.canonical import Node, canonical_form
from convatlas.search.costs import Costs, cell_network_costs, network_201_costs

NASNET_OPS = (
    "identity",
    "conv1x3_3x1",
    "conv1x7_7x1",
    "dilated3x3",
    "mean3x3",
    "max3x3",
    "max5x5",
    "max7x7",
    "conv1x1",
    "conv3x3",
    "separable3x3",
    "separable5x5",
    "separable7x7",
)
"""The 13 operations of Zoph et al. 2017, Section 3.1."""

AMOEBANET_OPS = (
    "identity",
    "separable3x3",
    "separable5x5",
    "separable7x7",
    "mean3x3",
    "max3x3",
    "dilated_separable3x3",
    "conv1x7_7x1",
)
"""The 8 operations of Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search"."""

TINY_OPS = ("identity", "separable3x3", "max3x3")


class CellSpace(Space):
    """Cells of B nodes, each of which sums two operations on two earlier states.

    Args:
        name: of the space.
        blocks: B, nodes in a cell.
        operations: names of `convatlas.blocks.cell_ops.OPERATIONS`.
        shared: one cell keeps the size and, with stride 2, halves it.
        cells: N, normal cells in each stage.
        chans: F, channels of each node of the first stage.
        imagenet_stem: build `cell_imagenet`, not `cell_cifar`.
    """

    def __init__(
        self,
        name: str,
        blocks: int,
        operations: Sequence[str],
        *,
        shared: bool = False,
        cells: int = 1,
        chans: int = 8,
        imagenet_stem: bool = False,
    ) -> None:
        self.name = name
        self.blocks = blocks
        self.operations = tuple(operations)
        self.shared = shared
        self.cells = cells
        self.chans = chans
        self.imagenet_stem = imagenet_stem
        short = tuple(SHORT[op] for op in self.operations)
        variables: list[str] = []
        values: list[tuple[str, ...]] = []
        for cell in ("cell",) if shared else ("normal", "reduction"):
            for i in range(blocks):
                for side in ("left", "right"):
                    variables += [f"{cell}.{i}.{side}.state", f"{cell}.{i}.{side}.op"]
                    values += [tuple(map(str, range(i + 2))), short]
        self.variables = tuple(variables)
        self.values = tuple(values)

    def _cell(self, choices: Choices) -> Genotype:
        edges = [Edge(self.operations[choices[j + 1]], choices[j]) for j in range(0, 4 * self.blocks, 2)]
        nodes = tuple((edges[2 * i], edges[2 * i + 1]) for i in range(self.blocks))
        return Genotype(nodes, loose_ends(nodes))

    def genotype(self, choices: Choices) -> CellGenotype:
        """The cells."""
        length = 4 * self.blocks
        return CellGenotype(
            self._cell(choices[:length]), None if self.shared else self._cell(choices[length:])
        )

    def text(self, choices: Choices) -> str:
        """The text of the genotype, without the numbers of the network around it."""
        return self.genotype(choices).text

    def choices_of(self, text: str) -> Choices:
        """Reads a genotype of this space; the numbers of a network around it are left out.

        Raises:
            ValueError: it does not parse, or lies outside the space.
        """
        genotype = parse_genotype(text)
        if (genotype.reduction is None) != self.shared:
            wanted = "one cell" if self.shared else "a normal and a reduction cell, with | between them"
            raise SpaceError(f"space {self.name}: {text!r}; expected {wanted}")
        choices: list[int] = []
        for cell in (
            (genotype.normal,) if genotype.reduction is None else (genotype.normal, genotype.reduction)
        ):
            if len(cell.nodes) != self.blocks or any(len(edges) != 2 for edges in cell.nodes):
                raise SpaceError(
                    f"space {self.name}: {cell_text(cell)!r}; expected {self.blocks} nodes of two operations"
                )
            if sorted(cell.concat) != list(loose_ends(cell.nodes)):
                raise SpaceError(
                    f"space {self.name}: {cell_text(cell)!r} concatenates {cell.concat}; "
                    "in this space the output is all nodes that no node reads"
                )
            for edges in cell.nodes:
                for op, state in edges:
                    short = [SHORT[name] for name in self.operations]
                    choices += [state, index_of(SHORT[op], short, f"space {self.name}, operation")]
        return tuple(choices)

    def key(self, choices: Choices) -> str:
        """Equal for cells that differ in the order of nodes, or of operations in a node."""
        length = 4 * self.blocks
        return "|".join(
            _cell_key(self.name, self.blocks, choices[i : i + length]) for i in range(0, len(choices), length)
        )

    def costs(self, choices: Choices, task: Task) -> Costs:
        """Exact sizes in closed form."""
        chans, height, width = task.image_size
        return cell_network_costs(
            self.genotype(choices),
            self.cells,
            self.chans,
            32 if self.imagenet_stem else 3 * self.chans,
            imagenet_stem=self.imagenet_stem,
            in_chans=chans,
            size=(height, width),
            num_classes=task.num_classes,
        )

    def network(self, choices: Choices) -> tuple[str, dict[str, Any]]:
        """`cell_cifar` or `cell_imagenet`, with the genotype's text."""
        genotype = dataclasses.replace(self.genotype(choices), cells=self.cells, chans=self.chans)
        return "cell_imagenet" if self.imagenet_stem else "cell_cifar", {"genotype": genotype.text}


@lru_cache(maxsize=100_000)
def _cell_key(space: str, blocks: int, choices: Choices) -> str:
    nodes: list[Node] = []
    for i in range(blocks):
        a, op_a, b, op_b = choices[4 * i : 4 * i + 4]
        nodes.append(((a, str(op_a)), (b, str(op_b))))
    read = {state for node in nodes for state, _ in node}
    ends = [state for state in range(2, blocks + 2) if state not in read]
    return canonical_form(nodes, 2, ends)


class Space201(Space):
    """The cells of NAS-Bench-201: five operations on each of six edges.

    Args:
        cells: N, cells in each stage.
        chans: C of the first stage.
    """

    name = "nasbench201"

    def __init__(self, *, cells: int = 5, chans: int = 16) -> None:
        self.cells = cells
        self.chans = chans
        self.variables = tuple(f"{source}->{target}" for target, source in EDGES)
        self.values = (OPERATIONS_201,) * len(EDGES)

    @cached_property
    def _keys(self) -> dict[Choices, str]:
        return {}

    def genotype(self, choices: Choices) -> Genotype201:
        """The cell."""
        return Genotype201(tuple(OPERATIONS_201[i] for i in choices))

    def text(self, choices: Choices) -> str:
        """The paper's text form."""
        words = [f"{OPERATIONS_201[i]}~{source}" for i, (_, source) in zip(choices, EDGES, strict=True)]
        return "+".join(f"|{'|'.join(part)}|" for part in (words[:1], words[1:3], words[3:]))

    def choices_of(self, text: str) -> Choices:
        """Reads the paper's text form.

        Raises:
            ValueError: it does not parse.
        """
        return tuple(OPERATIONS_201.index(op) for op in parse_201(text).ops)

    def key(self, choices: Choices) -> str:
        """Equal for cells that are the same network: `none` is no edge, and `skip_connect` no operation.

        Operations that do not reach the output stay a part of the network, and so of its key.
        """
        if choices not in self._keys:
            self._keys[choices] = _key_201(choices)
        return self._keys[choices]

    def costs(self, choices: Choices, task: Task) -> Costs:
        """Exact sizes in closed form."""
        chans, height, width = task.image_size
        return network_201_costs(
            self.genotype(choices),
            self.cells,
            self.chans,
            self.chans,
            in_chans=chans,
            size=(height, width),
            num_classes=task.num_classes,
        )

    def network(self, choices: Choices) -> tuple[str, dict[str, Any]]:
        """`cell_cifar` with the genotype's text."""
        genotype = dataclasses.replace(self.genotype(choices), cells=self.cells, chans=self.chans)
        return "cell_cifar", {"genotype": genotype.text}


def _key_201(choices: Choices) -> str:
    """The graph of the operations that have an instance: convolutions and pools."""
    # What each state sums: instances of operations, by number; -1 is the cell's input.
    sums: list[list[int]] = [[-1], [], [], []]
    nodes: list[Node] = []
    for (target, source), choice in zip(EDGES, choices, strict=True):
        op = OPERATIONS_201[choice]
        if op == "skip_connect":
            sums[target] += sums[source]
        elif op != "none":
            nodes.append(tuple((instance + 1, op) for instance in sums[source]) or ((0, f"0*{op}"),))
            sums[target].append(len(nodes) - 1)
    return canonical_form(nodes, 1, [instance + 1 for instance in sums[3]])
