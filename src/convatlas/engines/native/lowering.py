"""From the operations of an exported network to the steps of our own engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from convatlas.engines.backend import EngineError
from convatlas.engines.native.program import Array, Op, Program, Value
from convatlas.engines.native.steps import Activation, Kind

aten = torch.ops.aten


def lower(net: fx.GraphModule) -> Program:
    """Translates a folded network.

    Raises:
        EngineError: it has an operation that the engine has not got.
    """
    return _Lowering(net).run()


RELU = (Activation.CLIP, 0.0, math.inf)


class _Lowering:
    """Goes through the operations in order and keeps what each one gives."""

    def __init__(self, net: fx.GraphModule) -> None:
        self.net = net
        self.ops: list[Op] = []
        self.found: dict[fx.Node, Value] = {}

    def run(self) -> Program:
        images = logits = None
        batch = 0
        for node in self.net.graph.nodes:
            if node.op == "placeholder":
                batch, chans, height, width = node.meta["val"].shape
                images = self.found[node] = Value(height, width, chans)
            elif node.op == "call_function":
                handler = _HANDLERS.get(node.target)
                if handler is None:
                    raise EngineError(f"it has no {node.target}")
                made = self.found[node] = handler(self, node)
                if not _has_shape(made, batch, _shape(node)):
                    raise EngineError(f"it has no {node.target} that gives {_shape(node)}")
            elif node.op == "output":
                logits = self.value(node.args[0])
        if images is None or logits is None or (logits.height, logits.width) != (1, 1) or logits is images:
            raise EngineError("it gives logits only")
        return Program(self.ops, images, logits)

    def value(self, node: Any, *, may_be_padded: bool = False) -> Value:
        """The map that a node gives, copied with its padding unless whoever asks sees to that."""
        if not isinstance(node, fx.Node) or node not in self.found:
            raise EngineError(f"it has no constant maps ({node})")
        value = self.found[node]
        if value.base is None or may_be_padded:
            return value
        top, left, _, _ = value.padded
        made = Value(value.height, value.width, value.chans)
        self.ops.append(Op(Kind.COPY, value.base, made, window=(1, 1, 1, 1, top, left)))
        return made

    def constant(self, node: Any) -> Array | None:
        """A weight in float32."""
        if node is None:
            return None
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            raise EngineError("it has no weights that are computed")
        owner, _, name = str(node.target).rpartition(".")
        tensor: Tensor = getattr(self.net.get_submodule(owner), name)
        return tensor.detach().float().contiguous().numpy()

    def append(self, op: Op) -> Value:
        self.ops.append(op)
        return op.output

    def renamed(self, node: Any, value: Value) -> None:
        """After an operation in place, whoever holds the old map sees the new one."""
        old = self.found[node]
        for other, held in self.found.items():
            if held is old:
                self.found[other] = value


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _has_shape(value: Value, batch: int, shape: tuple[int, ...]) -> bool:
    """Whether a map is what torch has in that shape, flattened or not."""
    chans, height, width = value.chans, value.height, value.width
    if len(shape) == 4:
        return shape == (batch, chans, height, width)
    return len(shape) > 1 and shape[0] == batch and math.prod(shape[1:]) == chans * height * width


def _argument(node: fx.Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _pair(value: Any) -> tuple[int, int]:
    sizes = [value] if isinstance(value, int) else list(value)
    return (sizes[0], sizes[-1])


def _conv(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0], may_be_padded=True)
    weight, bias = lowering.constant(node.args[1]), lowering.constant(_argument(node, 2, "bias", None))
    stride, padding = _pair(_argument(node, 3, "stride", 1)), _argument(node, 4, "padding", 0)
    dilation, groups = _pair(_argument(node, 5, "dilation", 1)), _argument(node, 6, "groups", 1)
    if dilation != (1, 1) or weight is None:
        raise EngineError("it has no dilated convolution")
    out_chans, _, kernel_h, kernel_w = weight.shape
    if isinstance(padding, str):
        padding = ((kernel_h - 1) // 2, (kernel_w - 1) // 2) if padding == "same" else (0, 0)
    top, left = _pair(padding)
    top, left = top + given.padded[0], left + given.padded[1]
    _, _, height, width = _shape(node)
    made = Value(height, width, out_chans)
    source = given.base or given
    if groups == source.chans == out_chans and groups > 1:
        kind, weight = Kind.DEPTHWISE, weight[:, 0].reshape(out_chans, -1).T
    else:
        kind, weight = Kind.CONV, weight.transpose(0, 2, 3, 1)
    window = (kernel_h, kernel_w, *stride, top, left)
    weight = np.ascontiguousarray(weight)
    return lowering.append(Op(kind, source, made, window=window, groups=groups, weight=weight, bias=bias))


def _linear(lowering: _Lowering, node: fx.Node) -> Value:
    """A convolution whose kernel covers the whole map, as the map is flattened channel by channel."""
    given = lowering.value(node.args[0])
    weight, bias = lowering.constant(node.args[1]), lowering.constant(_argument(node, 2, "bias", None))
    assert weight is not None
    if len(_shape(node)) != 2 or weight.shape[1] != given.chans * given.height * given.width:
        raise EngineError("it has no linear layer over a part of a map")
    shaped = weight.reshape(-1, given.chans, given.height, given.width).transpose(0, 2, 3, 1)
    made = Value(1, 1, weight.shape[0])
    window = (given.height, given.width, 1, 1, 0, 0)
    return lowering.append(
        Op(Kind.CONV, given, made, window=window, weight=np.ascontiguousarray(shaped), bias=bias)
    )


def _batch_norm(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0])
    gamma, beta, mean, var = (lowering.constant(entry) for entry in node.args[1:5])
    if mean is None or var is None or node.args[5]:
        raise EngineError("it has no normalisation by the batch")
    scale = 1.0 / np.sqrt(var.astype(np.float64) + float(node.args[7]))  # type: ignore[arg-type]
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    return _affine(lowering, given, scale, shift)


def _affine(lowering: _Lowering, given: Value, scale: Any, shift: Any) -> Value:
    made = Value(given.height, given.width, given.chans)
    ones = np.ones(given.chans)
    if np.size(scale) not in (1, given.chans):
        raise EngineError("it has no normalisation of a map that was flattened")
    return lowering.append(
        Op(
            Kind.AFFINE,
            given,
            made,
            scale=(ones * scale).astype(np.float32),
            shift=(ones * shift).astype(np.float32),
        )
    )


def _activation(
    kind: Activation, low: float = 0.0, high: float = 0.0, *, in_place: bool = False
) -> Callable[[_Lowering, fx.Node], Value]:
    def handle(lowering: _Lowering, node: fx.Node) -> Value:
        bounds = (low, high)
        if node.target in (aten.hardtanh.default, aten.hardtanh_.default):
            bounds = (float(_argument(node, 1, "min_val", -1.0)), float(_argument(node, 2, "max_val", 1.0)))
        given = lowering.value(node.args[0])
        made = Value(given.height, given.width, given.chans)
        lowering.append(Op(Kind.AFFINE, given, made, activation=(kind, *bounds)))
        if in_place:
            lowering.renamed(node.args[0], made)
        return made

    return handle


def _add(lowering: _Lowering, node: fx.Node) -> Value:
    if node.kwargs.get("alpha", 1) != 1:
        raise EngineError("it has no sum with a factor")
    one, other = node.args
    left = lowering.value(one)
    if isinstance(other, int | float):
        made = _affine(lowering, left, 1.0, other)
    else:
        right = lowering.value(other)
        if (left.height, left.width, left.chans) != (right.height, right.width, right.chans):
            raise EngineError("it has no sum of maps of two sizes")
        made = Value(left.height, left.width, left.chans)
        made = lowering.append(Op(Kind.ADD, left, made, other=right))
    if node.target is aten.add_.Tensor:
        lowering.renamed(one, made)
    return made


def _multiply(lowering: _Lowering, node: fx.Node) -> Value:
    one, other = node.args
    if isinstance(other, int | float):
        factor = float(other) if node.target is aten.mul.Tensor else 1.0 / float(other)
        return _affine(lowering, lowering.value(one), factor, 0.0)
    left, right = lowering.value(one), lowering.value(other)
    if left.height * left.width < right.height * right.width:
        left, right = right, left
    if node.target is not aten.mul.Tensor or (right.height, right.width, right.chans) != (1, 1, left.chans):
        raise EngineError("it has no product of two maps")
    made = Value(left.height, left.width, left.chans)
    return lowering.append(Op(Kind.GATE, left, made, gate=right))


def _cat(lowering: _Lowering, node: fx.Node) -> Value:
    parts = tuple(lowering.value(part) for part in node.args[0])  # type: ignore[union-attr]
    rank = len(_shape(node))
    if _argument(node, 1, "dim", 0) not in (1, 1 - rank) or rank not in (2, 4):
        raise EngineError("it has no concatenation but that of channels")
    if rank == 2 and any(part.height * part.width > 1 for part in parts):
        raise EngineError("it has no concatenation of maps that were flattened")
    return Value(parts[0].height, parts[0].width, sum(part.chans for part in parts), parts=parts)


def _mean(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0])
    dims = sorted(dim % 4 for dim in _argument(node, 1, "dim", None) or ())
    if dims != [2, 3] or len(_shape(node.args[0])) != 4:  # type: ignore[arg-type]
        raise EngineError("it has no mean but that of all pixels")
    return lowering.append(Op(Kind.MEAN, given, Value(1, 1, given.chans)))


def _adaptive(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0])
    height, width = _pair(node.args[1])
    if (height, width) == (given.height, given.width):
        return given
    if given.height % height or given.width % width:
        raise EngineError("it has no pooling to a size that does not divide the map")
    kernel = (given.height // height, given.width // width)
    made = Value(height, width, given.chans)
    average = (False, given.height, given.width)
    return lowering.append(
        Op(Kind.AVERAGE_POOL, given, made, window=(*kernel, *kernel, 0, 0), average=average)
    )


def _pool(lowering: _Lowering, node: fx.Node) -> Value:
    is_max = node.target is aten.max_pool2d.default
    given = lowering.value(node.args[0])
    kernel = _pair(node.args[1])
    stride = _pair(_argument(node, 2, "stride", None) or kernel)
    top, left = _pair(_argument(node, 3, "padding", 0))
    _, _, height, width = _shape(node)
    made = Value(height, width, given.chans)
    op = Op(Kind.MAX_POOL, given, made, window=(*kernel, *stride, top, left))
    if is_max:
        if _pair(_argument(node, 4, "dilation", 1)) != (1, 1):
            raise EngineError("it has no dilated pooling")
        return lowering.append(op)
    if _argument(node, 6, "divisor_override", None) is not None:
        raise EngineError("it has no average with a divisor of its own")
    op.kind = Kind.AVERAGE_POOL
    op.average = (
        bool(_argument(node, 5, "count_include_pad", True)),
        given.height + 2 * top,
        given.width + 2 * left,
    )
    return lowering.append(op)


def _amax(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0])
    if sorted(dim % 4 for dim in _argument(node, 1, "dim", ())) != [2, 3]:
        raise EngineError("it has no maximum but that of all pixels")
    window = (given.height, given.width, 1, 1, 0, 0)
    return lowering.append(Op(Kind.MAX_POOL, given, Value(1, 1, given.chans), window=window))


def _pad(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0])
    if len(_shape(node)) != 4:
        raise EngineError("it has no padding but that of maps")
    pads = [*node.args[1], 0, 0, 0, 0, 0, 0][:6]  # type: ignore[misc]
    left, right, top, bottom, before, after = pads
    if _argument(node, 2, "mode", "constant") != "constant" or (_argument(node, 3, "value", None) or 0) != 0:
        raise EngineError("it has no padding but zeros")
    if before:
        raise EngineError("it has no new channels in front")
    _, chans, height, width = _shape(node)
    if after:
        made = Value(height, width, chans)
        return lowering.append(Op(Kind.COPY, given, made, window=(1, 1, 1, 1, top, left)))
    return Value(height, width, chans, padded=(top, left, bottom, right), base=given)


def _slice(lowering: _Lowering, node: fx.Node) -> Value:
    given = lowering.value(node.args[0])
    shape = _shape(node)
    dim, start = _argument(node, 1, "dim", 0) % len(shape), _argument(node, 2, "start", None) or 0
    step = _argument(node, 4, "step", 1)
    if shape == _shape(node.args[0]) and step == 1:  # type: ignore[arg-type]
        return given
    if dim not in (2, 3) or len(shape) != 4 or start < 0:
        raise EngineError("it has no part of a map but rows and columns")
    made = Value(shape[2], shape[3], shape[1])
    window = (1, 1, step if dim == 2 else 1, step if dim == 3 else 1)
    top, left = (-start, 0) if dim == 2 else (0, -start)
    return lowering.append(Op(Kind.COPY, given, made, window=(*window, top, left)))


def _same(lowering: _Lowering, node: fx.Node) -> Value:
    """Flattening, and what else leaves the map as it is: a linear layer knows the map that it flattens."""
    return lowering.value(node.args[0])


_HANDLERS: dict[Any, Callable[[_Lowering, fx.Node], Value]] = {
    aten.conv2d.default: _conv,
    aten.conv2d.padding: _conv,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _activation(*RELU),
    aten.relu_.default: _activation(*RELU, in_place=True),
    aten.hardtanh.default: _activation(Activation.CLIP),
    aten.hardtanh_.default: _activation(Activation.CLIP, in_place=True),
    aten.relu6.default: _activation(Activation.CLIP, 0.0, 6.0),
    aten.relu6_.default: _activation(Activation.CLIP, 0.0, 6.0, in_place=True),
    aten.silu.default: _activation(Activation.SILU),
    aten.silu_.default: _activation(Activation.SILU, in_place=True),
    aten.sigmoid.default: _activation(Activation.SIGMOID),
    aten.sigmoid_.default: _activation(Activation.SIGMOID, in_place=True),
    aten.tanh.default: _activation(Activation.TANH),
    aten.tanh_.default: _activation(Activation.TANH, in_place=True),
    aten.add.Tensor: _add,
    aten.add_.Tensor: _add,
    aten.mul.Tensor: _multiply,
    aten.div.Tensor: _multiply,
    aten.cat.default: _cat,
    aten.mean.dim: _mean,
    aten.amax.default: _amax,
    aten.adaptive_avg_pool2d.default: _adaptive,
    aten.avg_pool2d.default: _pool,
    aten.max_pool2d.default: _pool,
    aten.pad.default: _pad,
    aten.slice.Tensor: _slice,
    aten.flatten.using_ints: _same,
    aten.view.default: _same,
    aten.reshape.default: _same,
}
