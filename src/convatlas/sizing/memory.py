"""Memory: what is alive at once in inference, and what a training step keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .geometry import Permute
from .operation import VIEW, Operation
from .request import Request
from .trace import Checkpoint, Trace

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


def weight_bytes(request: Request) -> int:
    """Bytes of parameters and buffers."""
    return sum(map(request.bytes_of, (*request.net.parameters(), *request.net.buffers())))


def traffic(trace: Trace, request: Request) -> tuple[tuple[int, int], ...]:
    """Per row: bytes read, parameters and buffers included, and bytes written; none for a view."""
    slots = trace.slots
    # Bytes of what each node is, views included; inputs of the network have negative numbers.
    inputs = zip(request.shapes, request.dtypes, strict=True)
    held = {-1 - i: torch.Size(shape).numel() * dtype.itemsize for i, (shape, dtype) in enumerate(inputs)}
    found: list[tuple[int, int]] = []
    for row in trace.rows:
        outputs = row.output_shapes
        itemsize = row.dtype.itemsize
        size = held[row.index] = outputs[0].numel() * itemsize
        if row.kind == VIEW:
            found.append((0, 0))
            continue
        for slot, shape in enumerate(outputs[1:], start=1):
            size += shape.numel() * trace.slot_dtypes[row.index, slot].itemsize
        read = row.constant_bytes
        for position, node in enumerate(row.inputs):
            if slots and (row.index, position) in slots:
                dtype = trace.slot_dtypes[node, slots[row.index, position]]
                read += row.input_shapes[position].numel() * dtype.itemsize
            else:
                read += held[node]
        found.append((read, size))
    return tuple(found)


def store_bytes(trace: Trace, request: Request) -> dict[Any, int]:
    """Bytes of every storage of the graph, by key."""
    sizes: dict[Any, int] = {}
    for i, (shape, dtype) in enumerate(zip(request.shapes, request.dtypes, strict=True)):
        sizes[-1 - i] = torch.Size(shape).numel() * dtype.itemsize
    for row in trace.rows:
        for slot, shape in enumerate(row.output_shapes):
            if slot:
                itemsize = trace.slot_dtypes[row.index, slot].itemsize
                sizes[row.index, slot] = torch.Size(shape).numel() * itemsize
            elif row.index not in trace.aliases:
                sizes[row.index] = torch.Size(shape).numel() * row.dtype.itemsize
    return sizes


def peak_activation_bytes(trace: Trace, request: Request) -> int:
    """Most bytes of storages alive at once; the input lives until the end, as its caller holds it.

    Lifetimes are those of the Python objects in the forward itself. What an operation allocates and frees
    inside
    itself is not counted, but for the indices of a max pooling.
    """
    n = len(trace.rows)
    change = [0] * (n + 2)
    for key, size in store_bytes(trace, request).items():
        birth = key[0] if isinstance(key, tuple) else max(key, 0)
        held = isinstance(key, int) and key < 0
        if not held and key in trace.lives and key not in trace.output_keys:
            death = max(trace.lives[key], birth + 1)
        else:
            death = n + 1
        change[birth] += size
        change[death] -= size
    peak = alive = 0
    for index in range(n):
        alive += change[index]
        row = trace.rows[index]
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


def _extra_bytes(row: Operation) -> int:
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


def saved_bytes(trace: Trace, request: Request) -> int:
    """Bytes that autograd keeps after the forward, parameters and buffers apart."""
    sizes = store_bytes(trace, request)
    alias = trace.aliases
    needs: set[int] = set()
    kept: set[Any] = set()
    extra = 0
    trainable = _trainable(request)

    def key(row: Operation, position: int) -> Any:
        node = row.inputs[position]
        slot = trace.slots.get((row.index, position), 0)
        return (node, slot) if slot else alias.get(node, node)

    again = _outermost(trace.checkpoints)
    dead: set[int] = set()
    for row in trace.rows:
        part = again.get(row.index)
        if part is not None and row.index == part.begin and part.reentrant and needs.isdisjoint(part.inputs):
            # Nothing that enters it learns, so that nothing in it does.
            dead.update(range(part.begin, part.end))
        graded = [node in needs for node in row.inputs]
        learns = bool(row.constants) and row.kind != "view" and trainable(row.path)
        if not (learns or any(graded)) or not row.dtype.is_floating_point or row.index in dead:
            continue
        needs.add(row.index)
        if part is not None:
            # It runs again in the backward pass, from its inputs.
            kept.update(k for k in part.keys if k in sizes)
            continue
        if row.kind == "view":
            continue
        extra += _extra_bytes(row)
        keys = _kept(row, graded, learns, key, alias)
        if row.op == "matmul" and len(row.inputs) == 2:
            copied = [i for i in (0, 1) if _is_packed(trace, row, i) and key(row, i) in keys]
            extra += sum(torch.Size(row.input_shapes[i]).numel() for i in copied) * row.dtype.itemsize
            keys = [key(row, i) for i in (0, 1) if i not in copied and key(row, i) in keys]
        kept.update(k for k in keys if k in sizes)
    return sum(sizes[k] for k in kept) + extra


def _outermost(checkpoints: tuple[Checkpoint, ...]) -> dict[int, Checkpoint]:
    """The checkpointed part that each row lies in; of nested ones the outermost."""
    found: dict[int, Checkpoint] = {}
    for part in sorted(checkpoints, key=lambda part: part.begin - part.end):
        for index in range(part.begin, part.end):
            found.setdefault(index, part)
    return found


def _is_packed(trace: Trace, row: Operation, position: int) -> bool:
    """Whether a factor is a view whose batch dimensions do not lie in order: a product copies it."""
    if len(row.input_shapes[position]) < 4:
        return False
    node = row.inputs[position]
    while node >= 0 and trace.rows[node].kind == "view":
        geometry = trace.rows[node].geometry
        if isinstance(geometry, Permute) and geometry.order[:-2] != tuple(range(len(geometry.order) - 2)):
            return True
        node = trace.rows[node].inputs[0] if trace.rows[node].inputs else -1
    return False


def _kept(
    row: Operation,
    graded: list[bool],
    learns: bool,
    key: Callable[[Operation, int], Any],
    alias: Mapping[int, Any],
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


def _trainable(request: Request) -> Callable[[str], bool]:
    frozen: dict[str, bool] = {}
    modules = dict(request.net.named_modules())

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


def training_memory(trace: Trace, request: Request, optimizer: str) -> TrainingMemory:
    """What a training step holds; `trace` was recorded in training mode."""
    if optimizer not in OPTIMIZER_STATE:
        raise ValueError(f"`optimizer`={optimizer!r}; expected one of {', '.join(OPTIMIZER_STATE)}")
    learnt = [p for p in request.net.parameters() if p.requires_grad]
    per_element, per_tensor = OPTIMIZER_STATE[optimizer]
    gradients = sum(map(request.bytes_of, learnt))
    return TrainingMemory(
        params=sum(map(request.bytes_of, request.net.parameters())),
        buffers=sum(map(request.bytes_of, request.net.buffers())),
        gradients=gradients,
        optimizer=gradients * per_element + per_tensor * len(learnt),
        saved=saved_bytes(trace, request),
    )
