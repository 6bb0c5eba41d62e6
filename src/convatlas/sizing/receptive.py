"""Receptive field: which part of the input an output position depends on.

For each tensor and each spatial axis of the network's input, the position read is an affine function of the
tensor's own indices: a dimension of a tensor is a tuple of atoms (length, step per input axis),
so that reshapes,
permutations and window partitions stay exact. The interval `lo..hi` holds the union over all paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .geometry import EVERYTHING, Attend, Cat, Geometry, Mix, Pad, Permute, Reshape, Resize, Select, Window

if TYPE_CHECKING:
    from .row import Row
    from .sheet import Sheet

Shape = tuple[int, ...]
# A part of a dimension: its length, and how far each input axis moves per index.
Atom = tuple[int, tuple[float, ...]]


class ReceptiveField(NamedTuple):
    """The part of the input that one output position depends on, per axis, in px.

    Padding is ignored: the extent is that of a position far from the border, and may exceed the input.

    Attributes:
        size: extent; None where it is global (every position may depend on the whole axis).
        stride: how far the extent moves from one output position to the next; None where it does not move
        evenly.
        start: first px that output position 0 depends on; negative inside padding; None where global.
    """

    size: tuple[int | None, ...]
    stride: tuple[float | None, ...]
    start: tuple[int | None, ...]

    @property
    def is_global(self) -> bool:
        """Whether a position depends on the whole input, on some axis."""
        return None in self.size

    def __str__(self) -> str:
        return " x ".join("global" if s is None else str(s) for s in self.size)


@dataclass(frozen=True, slots=True)
class _Field:
    """Positions read by one tensor: `lo` and `hi` for index 0, per axis (None: the whole axis)."""

    dims: tuple[tuple[Atom, ...], ...]
    span: tuple[tuple[float, float] | None, ...]


# The usual field, of a tensor whose last dimensions are the input's axes and whose others do not move: per
# axis the first and the last position that index 0 reads (None: the whole axis) and the step per index. With
# steps of 0 only, a tensor may have any dimensions: all of it reads the same.
_Axis = tuple[float | None, float | None, float]
_Plain = tuple[_Axis, ...]
_AnyField = _Plain | _Field


def receptive_fields(sheet: Sheet) -> tuple[ReceptiveField | None, ...]:
    """Per row, with respect to the network's first input that has spatial axes."""
    shapes = sheet.request.shapes
    source = next((i for i, shape in enumerate(shapes) if len(shape) > 2), None)
    if source is None:
        return (None,) * len(sheet.rows)
    axes = len(shapes[source]) - 2
    fields: dict[int, _AnyField | None] = {-1 - source: ((0, 0, 1),) * axes}
    known: dict[_Plain, ReceptiveField] = {}
    found: list[ReceptiveField | None] = []
    for row in sheet.rows:
        field = _plainly(row, fields, axes)
        if field is None:
            field = _advance(row, fields, axes)
        fields[row.index] = field
        if type(field) is tuple:
            public = known.get(field)
            if public is None:
                public = known[field] = _published(field)
            found.append(public)
        else:
            found.append(None if field is None else _public(field))
    return tuple(found)


def _plainly(row: Row, fields: dict[int, _AnyField | None], axes: int) -> _Plain | None:
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


def _spread(field: _Plain, shape: Shape) -> _Field:
    """A plain field of a tensor of this shape in the form for every case."""
    axes = len(field)
    still = (0.0,) * axes
    span = tuple(None if a is None or b is None else (a, b) for a, b, _ in field)
    if not any(step for _, _, step in field):
        return _Field(tuple(((n, still),) for n in shape), span)
    dims = [((n, still),) for n in shape[:-axes]]
    for axis, (n, (_, _, step)) in enumerate(zip(shape[-axes:], field, strict=True)):
        dims.append(((n, (*still[:axis], step, *still[axis + 1 :])),))
    return _Field(tuple(dims), span)


def _plain(field: _Field) -> _AnyField:
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


def _advance(row: Row, fields: dict[int, _AnyField | None], axes: int) -> _AnyField | None:
    sources: list[tuple[_Field, Shape]] = []
    for node, shape in zip(row.inputs, row.input_shapes, strict=True):
        field = fields.get(node)
        if field is not None:
            sources.append((_spread(field, shape) if type(field) is tuple else field, shape))
    if not sources:
        return None
    if row.inplace and row.geometry is not None and row.op == "setitem":
        return _plain(_global(row.output_shape, axes))
    moved = [_through(row.geometry, field, size, row.output_shape, axes) for field, size in sources]
    if isinstance(row.geometry, Attend) and len(moved) == 2:
        return _plain(_attend(row, sources, axes))
    return _plain(_union(moved, row.output_shape, axes))


def _through(geometry: Geometry | None, field: _Field, shape: Shape, out: Shape, axes: int) -> _Field:
    if geometry is None:
        return _aligned(field, out, axes)
    if isinstance(geometry, Window):
        return _window(field, geometry, out)
    if isinstance(geometry, Mix):
        return _mix(field, geometry.dims, geometry.drop, out)
    if isinstance(geometry, Reshape):
        return _reshape(field, out, axes)
    if isinstance(geometry, Permute):
        return _Field(tuple(field.dims[d] for d in geometry.order), field.span)
    if isinstance(geometry, Select):
        return _select(field, geometry, out, axes)
    if isinstance(geometry, Cat):
        # Along the axis of the join each part starts elsewhere; that is exact for channels only.
        return (
            _mix(field, (geometry.dim,), False, out)
            if _moves(field, geometry.dim)
            else _resized(field, out, axes)
        )
    if isinstance(geometry, Pad):
        return _pad(field, geometry, out)
    if isinstance(geometry, Resize):
        return _resize(field, geometry, shape, out)
    return _global(out, axes)


def _flat(length: int, axes: int) -> tuple[Atom, ...]:
    return ((length, (0.0,) * axes),)


def _global(out: Shape, axes: int) -> _Field:
    return _Field(tuple(_flat(n, axes) for n in out), (None,) * axes)


def _moves(field: _Field, dim: int) -> bool:
    return any(step for length, steps in field.dims[dim] if length > 1 for step in steps)


def _single(field: _Field, dim: int) -> tuple[float, ...] | None:
    """Steps of a dimension that is affine in its index, else None."""
    atoms = [atom for atom in field.dims[dim] if atom[0] > 1] or list(field.dims[dim][:1])
    steps = atoms[-1][1]
    length = atoms[-1][0]
    for size, coarse in reversed(atoms[:-1]):
        if any(c != s * length for c, s in zip(coarse, steps, strict=True)):
            return None
        length *= size
    return steps


def _aligned(field: _Field, out: Shape, axes: int) -> _Field:
    """Elementwise with broadcasting: missing and repeated dimensions do not move."""
    lead = len(out) - len(field.dims)
    dims: list[tuple[Atom, ...]] = []
    for i, n in enumerate(out):
        atoms = field.dims[i - lead] if i >= lead else _flat(n, axes)
        dims.append(atoms if _length(atoms) == n else _flat(n, axes))
    return _Field(tuple(dims), field.span)


def _length(atoms: tuple[Atom, ...]) -> int:
    n = 1
    for length, _ in atoms:
        n *= length
    return n


def _resized(field: _Field, out: Shape, axes: int) -> _Field:
    return _Field(
        tuple(a if _length(a) == n else _flat(n, axes) for a, n in zip(field.dims, out, strict=True)),
        field.span,
    )


def _widen(
    span: tuple[tuple[float, float] | None, ...], steps: tuple[float, ...], first: float, last: float
) -> tuple[tuple[float, float] | None, ...]:
    """The interval when the index runs from `first` to `last` instead of standing at 0."""
    out: list[tuple[float, float] | None] = []
    for interval, step in zip(span, steps, strict=True):
        if interval is None or not step:
            out.append(interval)
        else:
            a, b = sorted((step * first, step * last))
            out.append((interval[0] + a, interval[1] + b))
    return tuple(out)


def _whole(field: _Field, dim: int) -> tuple[tuple[float, float] | None, ...]:
    """Spans after reading every index of a dimension: an axis that moves along it is read whole."""
    moving = {i for n, steps in field.dims[dim] if n > 1 for i, s in enumerate(steps) if s}
    return tuple(None if i in moving else span for i, span in enumerate(field.span))


def _mix(field: _Field, dims: Shape, drop: bool, out: Shape) -> _Field:
    span = field.span
    atoms = list(field.dims)
    for dim in dims:
        known = _Field(tuple(atoms), span)
        parts = _partial(known, dim)
        span = _whole(known, dim) if parts is None else parts
        atoms[dim] = _flat(1, len(span))
    if drop:
        atoms = [a for i, a in enumerate(atoms) if i not in dims]
    return _resized(_Field(tuple(atoms), span), out, len(span))


def _partial(field: _Field, dim: int) -> tuple[tuple[float, float] | None, ...] | None:
    """Spans after reading a dimension that holds only part of an axis, else None."""
    span = field.span
    for length, steps in field.dims[dim]:
        for axis, step in enumerate(steps):
            if not step or length == 1:
                continue
            others = [
                n
                for d, atoms in enumerate(field.dims)
                for n, other in atoms
                if d != dim and n > 1 and other[axis]
            ]
            if not others:
                return None
        span = _widen(span, steps, 0, length - 1)
    return span


def _window(field: _Field, w: Window, out: Shape) -> _Field:
    n = len(w.kernel)
    axes = len(field.span)
    span = field.span
    dims = list(field.dims)
    for i in range(n):
        dim = len(dims) - n + i
        k, s, p, d = w.kernel[i], w.stride[i], w.padding[i], w.dilation[i]
        steps = _single(field, dim)
        if steps is None:
            span = _whole(_Field(tuple(dims), span), dim)
            dims[dim] = _flat(out[dim], axes)
            continue
        if w.transposed:
            # Output o is written by inputs i with o = i*s - p + j*d: the hull over all phases.
            span = _widen(span, steps, -((d * (k - 1) - p) // s), p // s)
            dims[dim] = ((out[dim], tuple(step / s for step in steps)),)
            continue
        span = _widen(span, steps, -p, d * (k - 1) - p)
        dims[dim] = ((out[dim], tuple(step * s for step in steps)),)
    chan = len(dims) - n - 1
    if _moves(field, chan):
        # Positions were packed into channels, and all channels are read.
        return _mix(_Field(tuple(dims), span), (chan,), False, out)
    dims[chan] = _flat(out[chan], axes)
    return _Field(tuple(dims), span)


def _split_atoms(atoms: list[Atom], out: Shape, axes: int) -> tuple[tuple[Atom, ...], ...] | None:
    """Atoms regrouped under other dimensions; None if some would have to be cut unevenly."""
    left = [atom for atom in atoms if atom[0] != 1]
    dims: list[tuple[Atom, ...]] = []
    for n in out:
        group: list[Atom] = []
        need = n
        while need > 1:
            if not left:
                return None
            length, steps = left.pop(0)
            if length <= need:
                if need % length:
                    return None
                group.append((length, steps))
                need //= length
            else:
                if length % need:
                    return None
                fine = length // need
                group.append((need, tuple(s * fine for s in steps)))
                left.insert(0, (fine, steps))
                need = 1
        dims.append(tuple(group) or _flat(1, axes))
    return tuple(dims)


def _reshape(field: _Field, out: Shape, axes: int) -> _Field:
    dims = _split_atoms([a for atoms in field.dims for a in atoms], out, axes)
    return _global(out, axes) if dims is None else _Field(dims, field.span)


def _select(field: _Field, select: Select, out: Shape, axes: int) -> _Field:
    span = field.span
    dims: list[tuple[Atom, ...]] = []
    for dim, offset in enumerate(select.offsets):
        if offset and _moves(field, dim):
            steps = _single(field, dim)
            span = (None,) * axes if steps is None else _widen(span, steps, offset, offset)
    for n, (dim, step) in zip(out, select.picks, strict=True):
        if dim is None:
            dims.append(_flat(n, axes))
            continue
        atoms = field.dims[dim]
        if step == 1 and _length(atoms) == n:
            dims.append(atoms)
            continue
        steps = _single(field, dim)
        dims.append(_flat(n, axes) if steps is None else ((n, tuple(s * step for s in steps)),))
        if steps is None:
            span = (None,) * axes
    return _Field(tuple(dims), span)


def _pad(field: _Field, pad: Pad, out: Shape) -> _Field:
    axes = len(field.span)
    span = field.span
    dims = list(field.dims)
    for dim, before in enumerate(pad.before):
        if _length(dims[dim]) == out[dim] and not before:
            continue
        steps = _single(field, dim)
        if steps is None:
            return _global(out, axes)
        span = _widen(span, steps, -before, -before)
        dims[dim] = ((out[dim], steps),)
    return _Field(tuple(dims), span)


def _resize(field: _Field, resize: Resize, shape: Shape, out: Shape) -> _Field:
    axes = len(field.span)
    span = field.span
    dims = list(field.dims)
    n = len(resize.scale)
    for i, scale in enumerate(resize.scale):
        dim = len(dims) - n + i
        steps = _single(field, dim)
        if shape[dim] == 1:
            dims[dim] = _flat(out[dim], axes)
            continue
        if steps is None:
            return _global(out, axes)
        if scale != 1:
            first = 0 if resize.reach == 0 else -resize.reach
            span = _widen(span, steps, first, resize.reach)
        dims[dim] = ((out[dim], tuple(s * scale for s in steps)),)
    return _Field(tuple(dims), span)


def _attend(row: Row, sources: list[tuple[_Field, Shape]], axes: int) -> _Field:
    """A product of two activations: each side is read along its contracted dimension."""
    geometry = row.geometry
    assert isinstance(geometry, Attend)
    (left, _), (right, _) = sources
    out = row.output_shape
    a = _mix(
        left,
        geometry.left,
        False,
        tuple(1 if i in geometry.left else _length(d) for i, d in enumerate(left.dims)),
    )
    b = _mix(
        right,
        geometry.right,
        False,
        tuple(1 if i in geometry.right else _length(d) for i, d in enumerate(right.dims)),
    )
    return _union([_aligned(a, out, axes), _aligned(b, out, axes)], out, axes)


def _union(fields: list[_Field], out: Shape, axes: int) -> _Field:
    """Hull over several inputs: where they move differently along an axis, that axis is read whole."""
    first = fields[0]
    if len(fields) == 1:
        return first
    dims = list(first.dims)
    lost: set[int] = set()
    for other in fields[1:]:
        for i, (mine, theirs) in enumerate(zip(dims, other.dims, strict=True)):
            if mine == theirs:
                continue
            a, b = _single(_Field(tuple(dims), first.span), i), _single(other, i)
            for axis in range(axes):
                left = None if a is None else a[axis]
                right = None if b is None else b[axis]
                if out[i] > 1 and left != right:
                    lost.add(axis)
            if a is not None and b is not None:
                steps = tuple(0.0 if axis in lost else s for axis, s in enumerate(a))
                dims[i] = ((out[i], steps),)
            else:
                dims[i] = _flat(out[i], axes)
    span: list[tuple[float, float] | None] = []
    for axis in range(axes):
        parts = [field.span[axis] for field in fields]
        known = [p for p in parts if p is not None]
        if axis in lost or len(known) < len(parts):
            span.append(None)
        else:
            span.append((min(p[0] for p in known), max(p[1] for p in known)))
    return _Field(tuple(dims), tuple(span))


def _public(field: _Field) -> ReceptiveField:
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
