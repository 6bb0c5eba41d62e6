"""Receptive field: which part of the input an output position depends on.

Most tensors of a network have a plain field, of which this module takes care; `positions` has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import phases
from .geometry import EVERYTHING, Attend, Cat, Geometry, Mix, Pad, Resize, Select, Shuffle, Window
from .operation import Operation, Shape
from .phases import Axis, even
from .positions import Field, attend, everywhere, through, union
from .row import ReceptiveField
from .trace import Trace

# The usual field, of a tensor whose last dimensions are the input's axes and whose others do not move: per
# axis the first and the last position that index 0 reads (None: the whole axis) and the step per index. With
# steps of 0 only, a tensor may have any dimensions: all of it reads the same.
_Axis = tuple[float | None, float | None, float]
_Plain = tuple[_Axis, ...]


class Uneven(NamedTuple):
    """The same where positions do not move evenly: an axis of phases each; None for the whole axis."""

    axes: tuple[Axis | None, ...]


_AnyField = _Plain | Uneven | Field


def receptive_fields(trace: Trace, shapes: Sequence[Shape]) -> tuple[ReceptiveField | None, ...]:
    """Per row, with respect to the first of the network's inputs (of these shapes) that has spatial axes."""
    source = next((i for i, shape in enumerate(shapes) if len(shape) > 2), None)
    if source is None:
        return (None,) * len(trace.rows)
    axes = len(shapes[source]) - 2
    fields: dict[int, _AnyField | None] = {-1 - source: ((0, 0, 1),) * axes}
    known: dict[_Plain, ReceptiveField] = {}
    found: list[ReceptiveField | None] = []
    for row in trace.rows:
        field = _plainly(row, fields, axes)
        if field is None:
            field = _unevenly(row, fields, axes) or _advance(row, fields, axes)
        fields[row.index] = field
        if type(field) is Uneven:
            found.append(_published_phases(field))
        elif type(field) is tuple:
            public = known.get(field)
            if public is None:
                public = known[field] = _published(field)
            found.append(public)
        else:
            found.append(_public(field) if isinstance(field, Field) else None)
    return tuple(found)


def _plainly(row: Operation, fields: dict[int, _AnyField | None], axes: int) -> _Plain | None:
    """The field of a row that joins plain fields, or slides a window over one; else None."""
    geometry = row.geometry
    nodes = row.inputs
    if not nodes or row.op == "setitem":
        return None
    first = fields.get(nodes[0])
    if type(first) is not tuple:
        return None
    out = row.output_shapes[0]
    square = len(out) == axes + 2 == len(row.input_shapes[0])
    if type(geometry) is Window and square and not geometry.transposed and len(geometry.kernel) == axes:
        return _slide(first, geometry) if len(nodes) == 1 else None
    if not square or (geometry is not None and (type(geometry) is not Cat or geometry.dim > 1)):
        still = len(nodes) == 1 and geometry != EVERYTHING and not any([step for _, _, step in first])
        return first if still else None
    if len(nodes) == 1:
        return first if row.input_shapes[0] == out or geometry is not None else None
    parts: list[_Plain] = []
    for node, shape in zip(nodes, row.input_shapes, strict=True):
        field = fields.get(node)
        if type(field) is not tuple or len(shape) != axes + 2:
            return None
        if geometry is None and shape != out and shape[2:] != out[2:]:
            # Broadcast positions do not move.
            steps = zip(field, shape[2:], out[2:], strict=True)
            field = tuple(axis if a == b else (axis[0], axis[1], 0) for axis, a, b in steps)
        parts.append(field)
    return _hull(parts, out[2:])


def _slide(field: _Plain, w: Window) -> _Plain:
    """A window's reach around each position, and its stride."""
    out: list[_Axis] = []
    for (low, high, step), k, s, p, d in zip(field, w.kernel, w.stride, w.padding, w.dilation, strict=True):
        if low is not None and high is not None:
            low -= step * p
            high += step * (d * (k - 1) - p)
        out.append((low, high, step * s))
    return tuple(out)


def _unevenly(row: Operation, fields: dict[int, _AnyField | None], axes: int) -> _AnyField | None:
    """The field after an operation that maps each axis by itself, phase by phase; else None."""
    geometry, out = row.geometry, row.output_shapes[0]
    if len(out) != axes + 2 or row.op == "setitem":
        return None
    parts: list[tuple[Uneven, Shape]] = []
    for node, shape in zip(row.inputs, row.input_shapes, strict=True):
        field = fields.get(node)
        if field is None:
            continue
        if isinstance(field, Field) or len(shape) != axes + 2:
            return None
        parts.append((_lifted(field), shape))
    uneven = any(type(fields.get(node)) is Uneven for node in row.inputs)
    if not parts or not (uneven or isinstance(geometry, Window | Resize | Shuffle | Pad | Select)):
        return None
    if geometry is None or (isinstance(geometry, Cat) and geometry.dim < 2) or _mixes_channels(geometry):
        moved = [_broadcast(field, shape, out) for field, shape in parts]
        return _joined(moved, out[2:])
    if len(parts) > 1:
        return None
    field, shape = parts[0]
    after: list[Axis | None] = []
    for i, axis in enumerate(field.axes):
        step = None if axis is None else _stepped(axis, geometry, i, shape, axes)
        if step is NotImplemented:
            return None
        after.append(step)
    return _settled(Uneven(tuple(after)))


def _mixes_channels(geometry: Geometry) -> bool:
    return isinstance(geometry, Mix) and geometry.dims == (1,) and not geometry.drop


def _stepped(axis: Axis, geometry: Geometry | None, i: int, shape: Shape, axes: int) -> Any:
    """One axis after an operation; None where it is read whole, NotImplemented where others matter too."""
    if isinstance(geometry, Window) and len(geometry.kernel) == axes:
        return phases.window(axis, geometry, i)
    if isinstance(geometry, Resize) and len(geometry.new) == axes:
        whole = geometry.mode == "area" and geometry.new[i] == 1
        return None if whole and shape[i + 2] > 1 else phases.resize(axis, geometry, i, shape[i + 2])
    if isinstance(geometry, Shuffle) and axes == 2:
        return phases.shuffle(axis, geometry.factor)
    if isinstance(geometry, Pad) and not any(geometry.before[:2]):
        return phases.pad(axis, geometry, i + 2)
    if isinstance(geometry, Select) and [dim for dim, _ in geometry.picks] == list(range(axes + 2)):
        return phases.select(axis, geometry.offsets[i + 2], geometry.picks[i + 2][1])
    return NotImplemented


def _lifted(field: _Plain | Uneven) -> Uneven:
    if isinstance(field, Uneven):
        return field
    return Uneven(tuple(None if a is None or b is None else even(a, b, step) for a, b, step in field))


def _broadcast(field: Uneven, shape: Shape, out: Shape) -> Uneven:
    """Where an axis of one position meets one of many, none of them moves."""
    sizes = zip(field.axes, shape[2:], out[2:], strict=True)
    return Uneven(tuple(axis if axis is None or a == b else phases.still(axis) for axis, a, b in sizes))


def _joined(parts: list[Uneven], sizes: Shape) -> _AnyField:
    axes: list[Axis | None] = []
    for ways, size in zip(zip(*(part.axes for part in parts), strict=True), sizes, strict=True):
        known = [way for way in ways if way is not None]
        if len(known) < len(ways):
            axes.append(None)
        else:
            axes.append(phases.joined([phases.still(way) for way in known] if size == 1 else known))
    return _settled(Uneven(tuple(axes)))


def _settled(field: Uneven) -> _AnyField:
    """The plain form where every axis moves evenly."""
    if all(axis is None or (len(axis.extents) == 1 and None not in axis.extents) for axis in field.axes):
        return _flattened(field)
    return field


def _flattened(field: Uneven) -> _Plain:
    """The plain field that holds all phases."""
    hulls = [None if axis is None else phases.hull(axis) for axis in field.axes]
    return tuple((None, None, 0) if found is None else found for found in hulls)


def _published_phases(field: Uneven) -> ReceptiveField:
    found = [None if axis is None else phases.widest(axis) for axis in field.axes]
    return ReceptiveField(
        tuple(None if axis is None else axis[0] for axis in found),
        tuple(
            axis.shift if axis is not None and len(axis.extents) == 1 and axis.shift else None
            for axis in field.axes
        ),
        tuple(None if axis is None else axis[1] for axis in found),
    )


def _hull(parts: list[_Plain], sizes: Shape) -> _Plain:
    """The union: where parts move differently along an axis that has positions, it is read whole."""
    first = parts[0]
    if len(parts) == 2 and parts[1] == first:
        return first
    out: list[_Axis] = []
    for ways, size in zip(zip(*parts, strict=True), sizes, strict=True):
        step = ways[0][2]
        lows = [way[0] for way in ways]
        if size > 1 and any([way[2] != step for way in ways]):
            out.append((None, None, 0))
        elif None in lows:
            out.append((None, None, step))
        else:
            out.append((min(lows), max([way[1] for way in ways]), step))  # type: ignore[type-var]
    return tuple(out)


def _spread(field: _Plain, shape: Shape) -> Field:
    """A plain field of a tensor of this shape in the form for every case."""
    axes = len(field)
    still = (0.0,) * axes
    span = tuple(None if a is None or b is None else (a, b) for a, b, _ in field)
    if not any(step for _, _, step in field):
        return Field(tuple(((n, still),) for n in shape), span)
    dims = [((n, still),) for n in shape[:-axes]]
    for axis, (n, (_, _, step)) in enumerate(zip(shape[-axes:], field, strict=True)):
        dims.append(((n, (*still[:axis], step, *still[axis + 1 :])),))
    return Field(tuple(dims), span)


def _plain(field: Field) -> _AnyField:
    """The plain form where there is one."""
    axes = len(field.span)
    moving: list[float] = [0] * axes
    for dim, atoms in enumerate(field.dims):
        if not any(step for _, steps in atoms for step in steps):
            continue
        axis = dim - 2
        steps = atoms[0][1]
        mine = axis >= 0 and len(field.dims) == axes + 2 and len(atoms) == 1
        if not mine or any(step for i, step in enumerate(steps) if i != axis):
            return field
        moving[axis] = steps[axis]
    spans = zip(field.span, moving, strict=True)
    return tuple((None, None, step) if span is None else (*span, step) for span, step in spans)


def _advance(row: Operation, fields: dict[int, _AnyField | None], axes: int) -> _AnyField | None:
    sources: list[tuple[Field, Shape]] = []
    for node, shape in zip(row.inputs, row.input_shapes, strict=True):
        field = fields.get(node)
        if isinstance(field, Uneven):
            field = _flattened(field)
        if field is not None:
            sources.append((field if isinstance(field, Field) else _spread(field, shape), shape))
    if not sources:
        return None
    if row.inplace and row.geometry is not None and row.op == "setitem":
        return _plain(everywhere(row.output_shape, axes))
    moved = [through(row.geometry, field, size, row.output_shape, axes) for field, size in sources]
    if isinstance(row.geometry, Attend) and len(moved) == 2:
        return _plain(attend(row, sources, axes))
    return _plain(union(moved, row.output_shape, axes))


def _public(field: Field) -> ReceptiveField:
    known: list[_Axis] = []
    for axis, span in enumerate(field.span):
        atoms = [atom for dim in field.dims for atom in dim if atom[1][axis]]
        steps = {steps[axis] for n, steps in atoms if n > 1} or {steps[axis] for _, steps in atoms}
        step = steps.pop() if len(steps) == 1 else 0
        known.append((None, None, 0) if span is None else (*span, step))
    return _published(tuple(known))


def _published(field: _Plain) -> ReceptiveField:
    sizes: list[int | None] = []
    strides: list[float | None] = []
    starts: list[int | None] = []
    for low, high, step in field:
        if low is None or high is None:
            sizes.append(None)
            starts.append(None)
            strides.append(None)
            continue
        first = low if type(low) is int else int(low // 1)
        last = high if type(high) is int else -int(-high // 1)
        sizes.append(last - first + 1)
        starts.append(first)
        strides.append((int(step) if step == int(step) else step) if step else None)
    return ReceptiveField(tuple(sizes), tuple(strides), tuple(starts))
