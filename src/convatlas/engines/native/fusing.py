"""Steps that become a part of others: activations, sums, factors, normalisation before a 1x1 convolution."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from convatlas.engines.native.program import Op, Program, Value
from convatlas.engines.native.steps import Activation, Kind

# Below these channels, a row of the kernel is read as one piece, which needs the border in memory.
FEW_CHANNELS = 8


def fuse(program: Program) -> None:
    """Joins steps, in place."""
    rules: tuple[Callable[[Program, Op], bool], ...] = (
        _activation_into_producer,
        _sum_into_convolution,
        _affine_into_pointwise,
        _gate_into_pointwise,
        _relu_into_depthwise,
    )
    for rule in rules:
        for op in list(program.ops):
            if op in program.ops and rule(program, op):
                program.ops.remove(op)
    _add_border(program)


def readers(program: Program) -> Counter[Value]:
    """How often each map is read; a part of a concatenation is read by it."""
    found: Counter[Value] = Counter([program.logits])
    seen: set[Value] = set()
    for op in program.ops:
        for value in op.reads():
            found[value] += 1
            _count_parts(value, found, seen)
    _count_parts(program.logits, found, seen)
    return found


def _count_parts(value: Value, found: Counter[Value], seen: set[Value]) -> None:
    if value in seen:
        return
    seen.add(value)
    for part in value.parts:
        found[part] += 1
        _count_parts(part, found, seen)


def _producer(program: Program, value: Value) -> Op | None:
    return next((op for op in program.ops if op.output is value), None)


def _only_reader(program: Program, value: Value) -> Op | None:
    """The one step that reads a map, where nothing else does."""
    if readers(program)[value] != 1 or value is program.logits:
        return None
    return next((op for op in program.ops if value in op.reads()), None)


def _is_activation(op: Op) -> bool:
    return op.kind == Kind.AFFINE and op.scale is None and op.activation[0] != Activation.NONE


def _activation_into_producer(program: Program, op: Op) -> bool:
    producer = _producer(program, op.input)
    if not _is_activation(op) or producer is None or producer.activation[0] != Activation.NONE:
        return False
    if _only_reader(program, op.input) is not op:
        return False
    producer.activation, producer.output = op.activation, op.output
    return True


def _sum_into_convolution(program: Program, op: Op) -> bool:
    if op.kind != Kind.ADD or op.other is None:
        return False
    # The later one, so that the other operand is there already.
    for mine, other in sorted(
        ((op.input, op.other), (op.other, op.input)), key=lambda pair: -_place(program, pair[0])
    ):
        conv = _producer(program, mine)
        fits = conv is not None and conv.kind == Kind.CONV and conv.activation[0] == Activation.NONE
        if conv is None or not fits or conv.other is not None or _only_reader(program, mine) is not op:
            continue
        if mine is other or _place(program, mine) < _place(program, other):
            continue
        conv.other, conv.output, conv.activation = other, op.output, op.activation
        return True
    return False


def _place(program: Program, value: Value) -> int:
    """The number of the step after which a map is there."""
    if value.parts:
        return max(_place(program, part) for part in value.parts)
    producer = _producer(program, value)
    return -1 if producer is None else program.ops.index(producer)


def _affine_into_pointwise(program: Program, op: Op) -> bool:
    reader = _only_reader(program, op.output)
    is_relu = op.activation == (Activation.CLIP, 0.0, math.inf)
    if op.kind != Kind.AFFINE or reader is None or not reader.is_pointwise or reader.input is not op.output:
        return False
    if reader.changes_input:
        return False
    if not is_relu and op.activation[0] != Activation.NONE:
        return False
    reader.input, reader.scale, reader.shift, reader.relu_first = op.input, op.scale, op.shift, is_relu
    return True


def _gate_into_pointwise(program: Program, op: Op) -> bool:
    reader = _only_reader(program, op.output)
    if op.kind != Kind.GATE or op.activation[0] != Activation.NONE or reader is None:
        return False
    if not reader.is_pointwise or reader.input is not op.output or reader.changes_input:
        return False
    reader.input, reader.gate = op.input, op.gate
    return True


def _relu_into_depthwise(program: Program, op: Op) -> bool:
    reader = _only_reader(program, op.output)
    if not _is_activation(op) or op.activation != (Activation.CLIP, 0.0, math.inf) or reader is None:
        return False
    if reader.kind != Kind.DEPTHWISE or reader.relu_first:
        return False
    reader.input, reader.relu_first = op.input, True
    return True


def _add_border(program: Program) -> None:
    """Gives the images the zeros around them that the first convolution pads with."""
    images = program.images
    conv = _only_reader(program, images)
    if conv is None or conv.kind != Kind.CONV or conv.groups != 1 or images.chans > FEW_CHANNELS:
        return
    kernel_h, kernel_w, stride_h, stride_w, top, left = conv.window
    bottom = max(0, (conv.output.height - 1) * stride_h + kernel_h - images.height - top)
    right = max(0, (conv.output.width - 1) * stride_w + kernel_w - images.width - left)
    program.border = (top, left, bottom, right)
    images.height += top + bottom
    images.width += left + right
    conv.window = (kernel_h, kernel_w, stride_h, stride_w, 0, 0)
