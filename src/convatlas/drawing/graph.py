"""The graph that figures show: a node for each convolution, pooling, linear layer, sum and concatenation.

It is read from a trace. Norms, activations, dropout and views belong to the node that feeds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from convatlas.sizing.geometry import Window

from . import words

if TYPE_CHECKING:
    from convatlas.sizing import Sheet
    from convatlas.sizing.operation import Operation

JOINS = ("sum", "product", "concat")
_SUMS = {"add": "+", "sub": "−", "maximum": "max", "max": "max", "div": "÷"}
_WEIGHTY = ("conv", "linear", "matmul", "attention")


@dataclass(frozen=True)
class Node:
    """One box or joint of a figure.

    Attributes:
        index: position in the graph; a node reads only nodes before it.
        path: dotted path of the module that runs it.
        kind: input, conv, linear, pool, sum, product, concat or other.
        family: its colour.
        label: the operation without its stride, such as `3×3, 128`.
        stride: as it is written after the label, such as ` /2`.
        shape: of the output without the batch.
        inputs: the nodes it reads, in the order of the operation.
        params: parameters, those of the operations that belong to it included.
        macs: multiply-adds.
        groups: of a convolution.
        row: the row of the trace, -1 for an input.
        before: what the data passes between its input and the operation: norms and activations.
        layers: how many weight layers it stands for, if it has weights.
        arriving: of a joint, what each of its inputs passes on the way.
    """

    index: int
    path: str
    kind: str
    family: str
    label: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...] = ()
    stride: str = ""
    params: int = 0
    macs: int = 0
    groups: int = 1
    row: int = -1
    kernel: tuple[int, ...] = ()
    before: tuple[str, ...] = ()
    layers: int = 1
    arriving: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @property
    def text(self) -> str:
        """The whole label."""
        return self.label + self.stride

    @property
    def is_join(self) -> bool:
        """Whether it is drawn as a sum, a product or a concatenation."""
        return self.kind in JOINS

    @property
    def chans(self) -> int:
        """Channels, or units."""
        return self.shape[0] if self.shape else 1

    @property
    def px(self) -> int:
        """Height of the map; 1 for a vector."""
        return self.shape[-2] if len(self.shape) > 2 else (self.shape[-1] if len(self.shape) == 2 else 1)


@dataclass(frozen=True)
class Graph:
    """All nodes in execution order, and which of them leave the network.

    Attributes:
        nodes: in execution order; the inputs come first.
        outputs: nodes whose outputs the network returns.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    def consumers(self) -> list[list[int]]:
        """For each node, the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                found[source].append(node.index)
        return found


@dataclass
class _Reader:
    sheet: Sheet
    nodes: list[Node] = field(default_factory=list)
    alias: dict[int, int | None] = field(default_factory=dict)
    passed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    # Parameters that were read by operations on weights alone: they belong to the layer that follows.
    pending: int = 0


def read_graph(sheet: Sheet) -> Graph:
    """The graph of a trace, without what does not reach its output."""
    reader = _Reader(sheet)
    for i, given in enumerate(sheet.request.shapes):
        name = "input" if len(sheet.request.shapes) == 1 else f"input {i + 1}"
        reader.alias[-1 - i] = i
        reader.nodes.append(Node(i, "", "input", "io", name, tuple(given[1:])))
    skipped = _shape_keeping_leaves(sheet)
    for row in sheet.trace.rows:
        _read(reader, row, skipped)
    outputs = [reader.alias.get(node) for node in sheet.trace.outputs]
    kept = tuple(dict.fromkeys(node for node in outputs if node is not None))
    return _pruned(_merged_sums(Graph(tuple(reader.nodes), kept)))


def _shape_keeping_leaves(sheet: Sheet) -> dict[int, int]:
    """Rows of modules that act as a norm or an activation: row to the row that the module reads.

    These are modules without children and convolutions, of several operations, from one tensor to one of the
    same shape: a norm or an activation written out, such as local response normalisation.
    """
    by_path: dict[str, list[Operation]] = {}
    for row in sheet.trace.rows:
        by_path.setdefault(row.path, []).append(row)
    parents = {path.rpartition(".")[0] for path in by_path}
    found: dict[int, int] = {}
    for path, rows in by_path.items():
        if path in parents or len(rows) < 2 or any(row.kind in _WEIGHTY for row in rows):
            continue
        if not path or any(True for _ in sheet.request.net.get_submodule(path).children()):
            continue
        inside = {row.index for row in rows}
        outside = {source for row in rows for source in row.inputs if source not in inside}
        first = next((row for row in rows if row.input_shapes), None)
        if len(outside) == 1 and first and first.input_shapes[0] == rows[-1].output_shapes[0]:
            found.update(dict.fromkeys(inside, outside.pop()))
    return found


def _read(reader: _Reader, row: Operation, skipped: dict[int, int]) -> None:
    sources = [skipped[row.index]] if row.index in skipped else list(row.inputs)
    known = [reader.alias.get(source) for source in sources]
    inputs = tuple(node for node in known if node is not None)
    if not inputs:
        reader.pending += row.params
        reader.alias[row.index] = None
        return
    made = None if row.index in skipped else _node_of(row, inputs, len(reader.nodes))
    if made is None:
        target = inputs[0]
        node = reader.nodes[target]
        reader.nodes[target] = replace(node, params=node.params + row.params, macs=node.macs + row.macs)
        reader.alias[row.index] = target
        before = reader.passed.get(sources[0], ())
        if row.kind in ("norm", "activation"):
            before = (*before, "norm" if row.kind == "norm" else row.op.removesuffix("_"))
        reader.passed[row.index] = before
        return
    before = reader.passed.get(sources[0], ()) if sources else ()
    arriving: tuple[tuple[int, tuple[str, ...]], ...] = ()
    if made.is_join:
        ways = zip(known, sources, strict=True)
        arriving = tuple((n, reader.passed.get(s, ())) for n, s in ways if n is not None)
    params, reader.pending = made.params + reader.pending, 0
    reader.nodes.append(replace(made, before=before, arriving=arriving, params=params))
    reader.alias[row.index] = made.index


def _node_of(row: Operation, inputs: tuple[int, ...], index: int) -> Node | None:
    """The node of an operation; None if it belongs to the node that feeds it."""
    shape = tuple(row.output_shape[1:]) if len(row.output_shape) > 1 else tuple(row.output_shape)
    distinct = tuple(dict.fromkeys(inputs))
    base = Node(
        index, row.path, "other", "act", row.op, shape, distinct,
        params=row.params, macs=row.macs, row=row.index,
    )  # fmt: skip
    if row.kind == "conv":
        return _conv(base, row)
    if row.kind == "linear":
        return replace(base, kind="linear", family="linear", label=f"fc {tuple(row.output_shapes[0])[-1]}")
    if row.kind in ("pool", "reduce"):
        return _pool(base, row)
    if row.op in ("cat", "stack") and len(distinct) > 1:
        return replace(base, kind="concat", family="io", label="concat", inputs=inputs)
    if row.kind == "resize":
        return replace(base, label=f"resize {words.shape(shape[1:])}")
    if row.kind in ("matmul", "attention"):
        return replace(base, family="gate", label="attention" if row.kind == "attention" else row.op)
    if len(distinct) < 2:
        return None
    name = row.op.strip("_").removeprefix("i") if row.op.startswith("__") else row.op.rstrip("_")
    if name == "mul":
        return replace(base, kind="product", label="×")
    if row.kind == "elementwise":
        return replace(base, kind="sum", label=_SUMS.get(name, name))
    return base


def _conv(base: Node, row: Operation) -> Node:
    geometry = row.geometry
    if not isinstance(geometry, Window):
        return replace(base, kind="conv", family="conv", label=f"{row.op}, {base.chans}")
    kernel = geometry.kernel
    chans = row.output_shape[-len(kernel) - 1]
    groups = _groups(row, geometry)
    family = "pw" if all(k == 1 for k in kernel) else "conv"
    if groups > 1:
        family = "dw" if groups == row.input_shapes[0][-len(kernel) - 1] else "conv"
    label = f"{words.window(kernel)}, {chans}"
    if family == "dw":
        label = f"dw {label}"
    elif groups > 1:
        label += f", g={groups}"
    if geometry.transposed:
        label = f"up {label}"
    elif any(d > 1 for d in geometry.dilation):
        label += f", d={geometry.dilation[0]}"
    return replace(
        base, kind="conv", family=family, label=label, groups=groups, kernel=kernel,
        stride="" if geometry.transposed else words.stride(geometry.stride),
    )  # fmt: skip


def _groups(row: Operation, geometry: Window) -> int:
    size = 1
    for k in geometry.kernel:
        size *= k
    elements = row.output_elements if not geometry.transposed else row.input_shapes[0].numel()
    fan = row.macs // max(1, elements) // size
    chans = (row.input_shapes[0] if not geometry.transposed else row.output_shape)[-len(geometry.kernel) - 1]
    return max(1, chans // fan) if fan else 1


def _pool(base: Node, row: Operation) -> Node | None:
    """A pooling, or a reduction over all positions; None for what changes nothing that a figure shows."""
    source = tuple(row.input_shapes[0])
    name = "max" if "max" in row.op else "mean"
    geometry = row.geometry
    if isinstance(geometry, Window):
        label = f"{name} {words.window(geometry.kernel)}"
        trivial = all(k == 1 for k in geometry.kernel)
        if trivial and all(s == 1 for s in geometry.stride):
            return None
        return replace(
            base, kind="pool", family="pool", label=label, kernel=geometry.kernel,
            stride=words.stride(geometry.stride),
        )  # fmt: skip
    spatial = source[2:]
    if len(source) < 3 or (row.kind == "reduce" and row.op not in ("mean", "amax", "max")):
        return None
    left = tuple(row.output_shape[2:])
    if (
        left == spatial
        or all(s == 1 for s in spatial)
        or (row.kind == "reduce" and any(s != 1 for s in left))
    ):
        return None
    whole = all(s == 1 for s in left)
    label = f"{name} {words.window(spatial)}" if whole else f"{name} to {words.shape(left)}"
    return replace(base, kind="pool", family="pool", label=label, kernel=spatial)


def _merged_sums(graph: Graph) -> Graph:
    """A sum of sums as one sum of all: `a + b + c` is one joint."""
    readers = graph.consumers()
    nodes = list(graph.nodes)
    for node in graph.nodes:
        if node.kind != "sum" or node.label != "+":
            continue
        inputs: list[int] = []
        for source in node.inputs:
            inner = nodes[source]
            plain = inner.kind == "sum" and inner.label == "+" and not inner.params
            if plain and inner.path == node.path and len(readers[source]) == 1 and not node.before:
                inputs.extend(inner.inputs)
            else:
                inputs.append(source)
        nodes[node.index] = replace(nodes[node.index], inputs=tuple(dict.fromkeys(inputs)))
    return Graph(tuple(nodes), graph.outputs)


def _pruned(graph: Graph) -> Graph:
    """Without nodes that no output depends on; the inputs stay."""
    live: set[int] = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.index in live:
            live.update(node.inputs)
    kept = [node for node in graph.nodes if node.index in live or node.kind == "input"]
    return renumbered(kept, graph.outputs)


def renumbered(kept: Sequence[Node], outputs: Sequence[int]) -> Graph:
    """A graph of some nodes, whose inputs are among them."""
    place = {node.index: i for i, node in enumerate(kept)}
    nodes = tuple(
        replace(
            node,
            index=i,
            inputs=tuple(place[s] for s in node.inputs if s in place),
            arriving=tuple((place[s], way) for s, way in node.arriving if s in place),
        )
        for i, node in enumerate(kept)
    )
    return Graph(nodes, tuple(place[o] for o in outputs if o in place))


def common_path(nodes: Sequence[Node]) -> str:
    """The deepest module that runs all of these nodes."""
    parts = [node.path.split(".") for node in nodes]
    if not parts:
        return ""
    shared: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)
