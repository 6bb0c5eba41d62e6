"""How blocks, operations, shapes and numbers are said on the pages."""

from __future__ import annotations

from collections.abc import Sequence

from convatlas.drawing.graph import Node
from convatlas.drawing.tree import Cell, Lanes, Leaf, Series, residual_of, series_nodes
from convatlas.drawing.units import Unit
from convatlas.sizing import ReceptiveField
from convatlas.sizing.layers import Layer
from convatlas.sizing.operation import VIEW

_WORDS = {
    "batch_norm": "batch norm",
    "max_pool2d": "max pool",
    "avg_pool2d": "average pool",
    "adaptive_avg_pool2d": "average over all",
    "adaptive_max_pool2d": "maximum over all",
    "relu_": "relu",
    "conv2d": "conv",
    "cat": "concatenation",
    "mul": "product",
    "hardtanh": "relu6",
    "hardtanh_": "relu6",
    "mean": "mean over all",
}
_MOST_PARTS = 5


def grouped(value: int) -> str:
    """25,557,032; an en dash for nothing."""
    return f"{value:,}" if value else "–"


def shape(sizes: Sequence[int]) -> str:
    """256×56×56."""
    return "×".join(map(str, sizes)) or "1"


def field(found: ReceptiveField | None) -> str:
    """A receptive field in px: 43, 11×7 or all; an en dash where there is none."""
    if found is None or not found.size:
        return "–"
    sizes = ["all" if size is None else str(size) for size in found.size]
    return sizes[0] if len(set(sizes)) == 1 else "×".join(sizes)


def common(paths: Sequence[str]) -> str:
    """The deepest module that holds all of these; the path itself where there is one."""
    if len(set(paths)) == 1:
        return paths[0]
    shared: list[str] = []
    for names in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def layer(found: Layer) -> str:
    """An operation with its window: conv 3×3 /2."""
    words = found.operation.split(" ")
    if found.kind == VIEW:
        return f"{words[0].strip('_')} (moves nothing)"
    name = _WORDS.get(words[0], words[0].strip("_").replace("_", " "))
    if found.kind == "elementwise" and words[0].startswith(("add", "iadd", "__iadd", "__add")):
        return "add"
    kept: list[str] = []
    skip = False
    for word in words[1:]:
        if skip or word == "pad":
            skip = word == "pad"
            continue
        kept.append(word.replace("x", "×") if word[:1].isdigit() or word[:1] == "/" else word)
    return " ".join([name, *kept])


def unit(found: Unit, operations: Sequence[str]) -> str:
    """A block in a line."""
    if found.kind == "dense":
        return f"{found.repeats} layers, each adds {found.growth} channels"
    if found.kind == "cell":
        return f"cell of {len(found.nodes)} operations"
    if not found.is_block:
        said = [word for word in operations if "moves nothing" not in word]
        return ", ".join(_brief(said) or operations[:1])
    return series(found.series)


def _brief(operations: Sequence[str]) -> list[str]:
    names = {"batch norm": "norm"}
    return [names.get(word, word) for word in operations][:_MOST_PARTS]


def series(parts: Series) -> str:
    """What a block consists of: 1×1, 3×3 /2, 1×1, projection."""
    words: list[str] = []
    for element in parts:
        if isinstance(element, Leaf):
            words.append(_node(element.node))
        elif isinstance(element, Cell):
            words.append(f"cell of {len(element.nodes)} operations")
        else:
            words.append(_lanes(element))
    return ", ".join(word for word in words if word)


def _lanes(element: Lanes) -> str:
    residual = residual_of(element)
    if element.join.kind == "product":
        return "squeeze-excite"
    if residual is None:
        lanes = [series(lane) for lane in element.lanes] + (["identity"] if element.identity else [])
        return " | ".join(lanes)
    main = " + ".join(series(lane) for lane in residual.main)
    return f"{main}, projection" if residual.projection is not None else main


def _node(node: Node) -> str:
    if node.is_join:
        return {"concat": "concatenation", "sum": "add", "product": "product"}[node.kind]
    words = node.label.split(",")[0]
    return words + node.stride


def stage(units: Sequence[Unit]) -> str:
    """What a stage consists of: 3 bottlenecks."""
    counts: dict[str, int] = {}
    for each in units:
        word = _kind(each)
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} {word if count == 1 else _plural(word)}" for word, count in counts.items())


def _kind(each: Unit) -> str:
    if each.kind == "residual":
        residuals = [residual_of(element) for element in each.series if isinstance(element, Lanes)]
        main = [
            node
            for found in residuals
            if found is not None
            for lane in found.main
            for node in series_nodes(lane)
            if node.kind == "conv" and node.px > 1
        ]
        kernels = [max(node.kernel, default=1) for node in main]
        depthwise = any(node.family == "dw" for node in main)
        if len(kernels) == 3 and kernels[0] == kernels[2] == 1 < kernels[1]:
            return "inverted bottleneck" if depthwise else "bottleneck"
        return "residual block"
    names = {"lanes": "block of branches", "dense": "dense block", "cell": "cell", "gate": "gated block"}
    if each.kind in ("layer", "join"):
        nodes = {"conv": "convolution", "pool": "pooling", "linear": "linear layer"}
        return nodes.get(each.last.kind, "operation")
    return names.get(each.kind, "block")


def _plural(word: str) -> str:
    if word == "block of branches":
        return "blocks of branches"
    return f"{word}s"


def mark_of_unit(each: Unit) -> str:
    """What stands for a block in the figure."""
    if each.is_block:
        return each.kind if each.kind in ("lanes", "dense", "cell") else "block"
    return {"conv": "conv", "pool": "pool", "linear": "linear", "sum": "add", "concat": "add"}.get(
        each.last.kind, "thin"
    )


def mark_of_layer(found: Layer) -> str:
    """What stands for an operation in the figure."""
    if found.kind in ("conv", "pool", "linear"):
        return found.kind
    several = len(found.rows[0].input_shapes) > 1
    if several and (found.kind == "elementwise" or found.operation.startswith("cat")):
        return "add"
    return "view" if found.kind == VIEW else "thin"
