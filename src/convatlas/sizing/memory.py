"""Memory: what is alive at once in inference, and what a training step keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .geometry import Permute
from .row import VIEW

if TYPE_CHECKING:
    from .row import Row
    from .sheet import Request, Sheet

# Optimizer: elements of state per parameter, and bytes per tensor (a step counter in float32).
OPTIMIZER_STATE = {"sgd": (0, 0), "momentum": (1, 0), "rmsprop": (1, 4), "adam": (2, 4), "adamw": (2, 4)}


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes held when the forward of a training step ends, and by its optimizer.

    Attributes:
        params: parameters.
        buffers: running statistics and other buffers.
        gradients: one per trainable parameter.
        optimizer: state of the optimizer.
        saved: what autograd keeps for the backward pass, parameters and buffers apart, the input included.
    """

    params: int
    buffers: int
    gradients: int
    optimizer: int
    saved: int

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.params + self.buffers + self.gradients + self.optimizer + self.saved


def _bytes(tensors: Any, dtype: torch.dtype) -> int:
    return sum(
        x.numel() * (dtype.itemsize if x.dtype.is_floating_point else x.dtype.itemsize) for x in tensors
    )


def weight_bytes(request: Request) -> int:
    """Bytes of parameters and buffers."""
    return _bytes(request.net.parameters(), request.dtype) + _bytes(request.net.buffers(), request.dtype)


def traffic(sheet: Sheet) -> tuple[tuple[int, int], ...]:
    """Per row: bytes read, parameters and buffers included, and bytes written; none for a view."""
    weight = sheet.dtype.itemsize
    slots = sheet.graph.slots
    # Bytes of what each node is, views included; inputs of the network have negative numbers.
    inputs = zip(sheet.request.shapes, sheet.request.dtypes, strict=True)
    held = {-1 - i: torch.Size(shape).numel() * dtype.itemsize for i, (shape, dtype) in enumerate(inputs)}
    found: list[tuple[int, int]] = []
    for row in sheet.rows:
        outputs = row.output_shapes
        itemsize = row.dtype.itemsize
        size = held[row.index] = outputs[0].numel() * itemsize
        if row.kind == VIEW:
            found.append((0, 0))
            continue
        if len(outputs) > 1:
            size = sum(shape.numel() for shape in outputs) * itemsize
        read = row.constants * weight
        for position, node in enumerate(row.inputs):
            if slots and (row.index, position) in slots:
                dtype = sheet.rows[node].dtype if node >= 0 else sheet.request.dtypes[-1 - node]
                read += row.input_shapes[position].numel() * dtype.itemsize
            else:
                read += held[node]
        found.append((read, size))
    return tuple(found)


def store_bytes(sheet: Sheet) -> dict[Any, int]:
    """Bytes of every storage of the graph, by key."""
    sizes: dict[Any, int] = {}
    for i, (shape, dtype) in enumerate(zip(sheet.request.shapes, sheet.request.dtypes, strict=True)):
        sizes[-1 - i] = torch.Size(shape).numel() * dtype.itemsize
    for row in sheet.rows:
        for slot, shape in enumerate(row.output_shapes):
            if slot:
                # Second outputs are indices, statistics or further parts.
                itemsize = 8 if row.kind in ("pool", "reduce") else row.dtype.itemsize
                sizes[row.index, slot] = torch.Size(shape).numel() * itemsize
            elif row.index not in sheet.graph.alias:
                sizes[row.index] = torch.Size(shape).numel() * row.dtype.itemsize
    return sizes


def peak_activation_bytes(sheet: Sheet) -> int:
    """Most bytes of storages alive at once; the input lives until the end, as its caller holds it.

    Lifetimes are those of the Python objects in the forward itself. What an operation allocates and frees
    inside
    itself is not counted, but for the indices of a max pooling.
    """
    n = len(sheet.rows)
    change = [0] * (n + 2)
    for key, size in store_bytes(sheet).items():
        birth = key[0] if isinstance(key, tuple) else max(key, 0)
        held = isinstance(key, int) and key < 0
        if not held and key in sheet.graph.deaths and key not in sheet.graph.output_keys:
            death = max(sheet.graph.deaths[key], birth + 1)
        else:
            death = n + 1
        change[birth] += size
        change[death] -= size
    peak = alive = 0
    for index in range(n):
        alive += change[index]
        row = sheet.rows[index]
        indices = (
            8 * row.output_elements if row.op.startswith("max_pool") and len(row.output_shapes) == 1 else 0
        )
        peak = max(peak, alive + indices)
    return peak


# What autograd keeps, per operation: i the input, o the output, b both factors, n nothing.
_KEEPS = {
    name: what
    for what, names in {
        "n": (
            "reshape flatten contiguous add sub rsub subtract neg cat stack clone to copy setitem pad "
            "mean sum interpolate repeat roll pixel_shuffle pixel_unshuffle channel_shuffle create fill "
            "getitem index_select gather embedding test eq ne lt le gt ge cumsum floor round sign where "
            "unfold fold repeat_interleave"
        ),
        "b": ("mul multiply matmul addmm einsum div outer"),
        "o": ("relu sigmoid tanh softmax exp sqrt rsqrt reciprocal threshold"),
    }.items()
    for name in names.split()
}
# In place they would overwrite what they need, so autograd keeps a copy of the input.
_COPIES_INPUT = ("silu", "hardswish", "hardsigmoid", "mish", "relu6", "hardtanh")


def _extra_bytes(row: Row) -> int:
    """Bytes kept that no storage of the graph holds: statistics, indices, masks."""
    size, shape = row.dtype.itemsize, tuple(row.input_shapes[0]) if row.input_shapes else (1, 1)
    elements = torch.Size(shape).numel()
    if row.op.startswith("max_pool") or row.op.startswith("adaptive_max_pool"):
        return 8 * row.output_elements if len(row.output_shapes) == 1 else 0
    if row.op == "batch_norm":
        return 2 * shape[1] * max(size, 4) if row.flops == 7 * elements else 0
    if row.op == "layer_norm":
        last = row.geometry.dims if row.geometry is not None else ()  # type: ignore[union-attr]
        rows = elements
        for dim in last:
            rows //= shape[dim]
        return 2 * rows * max(size, 4)
    if row.op == "dropout":
        return elements * size
    if row.op == "scaled_dot_product_attention":
        return 4 * torch.Size(row.output_shape[:-1]).numel()
    if row.op == "local_response_norm":
        window = row.flops // elements - 5
        return (3 * elements + elements // shape[1] * (window - 1)) * size
    if row.inplace and row.op in _COPIES_INPUT:
        return elements * size
    return 0


def saved_bytes(sheet: Sheet) -> int:
    """Bytes that autograd keeps after the forward, parameters and buffers apart."""
    sizes = store_bytes(sheet)
    alias = sheet.graph.alias
    needs: set[int] = set()
    kept: set[Any] = set()
    extra = 0
    trainable = _trainable(sheet)

    def key(row: Row, position: int) -> Any:
        node = row.inputs[position]
        slot = sheet.graph.slots.get((row.index, position), 0)
        return (node, slot) if slot else alias.get(node, node)

    for row in sheet.rows:
        graded = [node in needs for node in row.inputs]
        learns = bool(row.constants) and row.kind != "view" and trainable(row.path)
        if not (learns or any(graded)) or not row.dtype.is_floating_point:
            continue
        needs.add(row.index)
        if row.kind == "view":
            continue
        extra += _extra_bytes(row)
        keys = _kept(row, graded, learns, key, alias)
        if row.op == "matmul" and len(row.inputs) == 2:
            copied = [i for i in (0, 1) if _is_packed(sheet, row, i) and key(row, i) in keys]
            extra += sum(torch.Size(row.input_shapes[i]).numel() for i in copied) * row.dtype.itemsize
            keys = [key(row, i) for i in (0, 1) if i not in copied and key(row, i) in keys]
        kept.update(k for k in keys if k in sizes)
    return sum(sizes[k] for k in kept) + extra


def _is_packed(sheet: Sheet, row: Row, position: int) -> bool:
    """Whether a factor is a view whose batch dimensions do not lie in order: a product copies it."""
    if len(row.input_shapes[position]) < 4:
        return False
    node = row.inputs[position]
    while node >= 0 and sheet.rows[node].kind == "view":
        geometry = sheet.rows[node].geometry
        if isinstance(geometry, Permute) and geometry.order[:-2] != tuple(range(len(geometry.order) - 2)):
            return True
        node = sheet.rows[node].inputs[0] if sheet.rows[node].inputs else -1
    return False


def _kept(
    row: Row, graded: list[bool], learns: bool, key: Callable[[Row, int], Any], alias: dict[int, Any]
) -> list[Any]:
    what = _KEEPS.get(row.op, "i")
    if row.op.startswith("adaptive_avg_pool") and all(s == 1 for s in row.output_shape[2:]):
        what = "n"
    out = alias.get(row.index, row.index)
    if what == "o":
        return [out]
    if what == "n":
        return []
    if row.op == "dropout":
        return []
    if what == "b":
        # Each factor is kept for the gradient of the other.
        if not row.inputs:
            return []
        if len(row.inputs) == 1:
            return [key(row, 0)] if learns or (row.op not in ("mul", "div", "multiply")) else []
        keys: list[Any] = []
        if graded[1] or learns:
            keys.append(key(row, 0))
        if graded[0] or learns:
            keys.append(key(row, 1))
        return keys
    if row.op == "scaled_dot_product_attention":
        return [*(key(row, i) for i in range(min(3, len(row.inputs)))), out]
    if row.inplace and row.op in _COPIES_INPUT:
        return []
    return [key(row, i) for i in range(len(row.inputs))]


def _trainable(sheet: Sheet) -> Callable[[str], bool]:
    frozen: dict[str, bool] = {}
    modules = dict(sheet.request.net.named_modules())

    def trainable(path: str) -> bool:
        if path not in frozen:
            module = modules.get(path)
            own = [] if module is None else list(module.parameters(recurse=False))
            frozen[path] = (
                any(p.requires_grad for p in own) if own else module is None or not _only_buffers(module)
            )
        return frozen[path]

    return trainable


def _only_buffers(module: torch.nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters())


def training_memory(sheet: Sheet, optimizer: str) -> TrainingMemory:
    """What a training step holds; `sheet` was traced in training mode."""
    if optimizer not in OPTIMIZER_STATE:
        raise ValueError(f"`optimizer`={optimizer!r}; expected one of {', '.join(OPTIMIZER_STATE)}")
    request = sheet.request
    learnt = [p for p in request.net.parameters() if p.requires_grad]
    per_element, per_tensor = OPTIMIZER_STATE[optimizer]
    gradients = _bytes(learnt, request.dtype)
    return TrainingMemory(
        params=_bytes(request.net.parameters(), request.dtype),
        buffers=_bytes(request.net.buffers(), request.dtype),
        gradients=gradients,
        optimizer=gradients * per_element + per_tensor * len(learnt),
        saved=saved_bytes(sheet),
    )
