"""Which part of the input an output position depends on, for every way in which positions can map.

For each tensor and each spatial axis of the network's input, the position read is an affine function of the
tensor's own indices: a dimension of a tensor is a tuple of atoms (length, step per input axis), so that
reshapes, permutations and window partitions stay exact. The interval `lo..hi` holds the union over all paths.
"""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import (
    Attend,
    Cat,
    Geometry,
    Mix,
    Pad,
    Permute,
    Reshape,
    Resize,
    Select,
    Shuffle,
    Slide,
    Window,
)
from .operation import Operation, Shape

# A part of a dimension: its length, and how far each input axis moves per index.
Atom = tuple[int, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Field:
    """Positions read by one tensor: `lo` and `hi` for index 0, per axis (None: the whole axis)."""

    dims: tuple[tuple[Atom, ...], ...]
    span: tuple[tuple[float, float] | None, ...]


def through(geometry: Geometry | None, field: Field, shape: Shape, out: Shape, axes: int) -> Field:
    """The field after an operation that maps one input of this shape to an output."""
    if geometry is None:
        return _aligned(field, out, axes)
    if isinstance(geometry, Window):
        return _window(field, geometry, out)
    if isinstance(geometry, Mix):
        return _mix(field, geometry.dims, geometry.drop, out)
    if isinstance(geometry, Reshape):
        return _reshape(field, out, axes)
    if isinstance(geometry, Permute):
        return Field(tuple(field.dims[d] for d in geometry.order), field.span)
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
    if isinstance(geometry, Shuffle):
        return _shuffle(field, geometry.factor, shape, out, axes)
    if isinstance(geometry, Slide):
        return _slide(field, geometry, out, axes)
    return everywhere(out, axes)


def _flat(length: int, axes: int) -> tuple[Atom, ...]:
    return ((length, (0.0,) * axes),)


def everywhere(out: Shape, axes: int) -> Field:
    """The field of what may depend on every position."""
    return Field(tuple(_flat(n, axes) for n in out), (None,) * axes)


def _moves(field: Field, dim: int) -> bool:
    return any(step for length, steps in field.dims[dim] if length > 1 for step in steps)


def _single(field: Field, dim: int) -> tuple[float, ...] | None:
    """Steps of a dimension that is affine in its index, else None."""
    atoms = [atom for atom in field.dims[dim] if atom[0] > 1] or list(field.dims[dim][:1])
    steps = atoms[-1][1]
    length = atoms[-1][0]
    for size, coarse in reversed(atoms[:-1]):
        if any(c != s * length for c, s in zip(coarse, steps, strict=True)):
            return None
        length *= size
    return steps


def _aligned(field: Field, out: Shape, axes: int) -> Field:
    """Elementwise with broadcasting: missing and repeated dimensions do not move."""
    lead = len(out) - len(field.dims)
    dims: list[tuple[Atom, ...]] = []
    for i, n in enumerate(out):
        atoms = field.dims[i - lead] if i >= lead else _flat(n, axes)
        dims.append(atoms if _length(atoms) == n else _flat(n, axes))
    return Field(tuple(dims), field.span)


def _length(atoms: tuple[Atom, ...]) -> int:
    n = 1
    for length, _ in atoms:
        n *= length
    return n


def _resized(field: Field, out: Shape, axes: int) -> Field:
    return Field(
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


def _whole(field: Field, dim: int) -> tuple[tuple[float, float] | None, ...]:
    """Spans after reading every index of a dimension: an axis that moves along it is read whole."""
    moving = {i for n, steps in field.dims[dim] if n > 1 for i, s in enumerate(steps) if s}
    return tuple(None if i in moving else span for i, span in enumerate(field.span))


def _mix(field: Field, dims: Shape, drop: bool, out: Shape) -> Field:
    span = field.span
    atoms = list(field.dims)
    for dim in dims:
        known = Field(tuple(atoms), span)
        parts = _partial(known, dim)
        span = _whole(known, dim) if parts is None else parts
        atoms[dim] = _flat(1, len(span))
    if drop:
        atoms = [a for i, a in enumerate(atoms) if i not in dims]
    return _resized(Field(tuple(atoms), span), out, len(span))


def _partial(field: Field, dim: int) -> tuple[tuple[float, float] | None, ...] | None:
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


def _window(field: Field, w: Window, out: Shape) -> Field:
    n = len(w.kernel)
    axes = len(field.span)
    span = field.span
    dims = list(field.dims)
    for i in range(n):
        dim = len(dims) - n + i
        k, s, p, d = w.kernel[i], w.stride[i], w.padding[i], w.dilation[i]
        steps = _single(field, dim)
        if steps is None:
            span = _whole(Field(tuple(dims), span), dim)
            dims[dim] = _flat(out[dim], axes)
            continue
        if w.transposed:
            # Output o is written by inputs i with o = i*s - p + j*d: the hull over all phases.
            span = _widen(span, steps, (p - d * (k - 1)) / s, p / s)
            dims[dim] = ((out[dim], tuple(step / s for step in steps)),)
            continue
        span = _widen(span, steps, -p, d * (k - 1) - p)
        dims[dim] = ((out[dim], tuple(step * s for step in steps)),)
    chan = len(dims) - n - 1
    if _moves(field, chan):
        # Positions were packed into channels, and all channels are read.
        return _mix(Field(tuple(dims), span), (chan,), False, out)
    dims[chan] = _flat(out[chan], axes)
    return Field(tuple(dims), span)


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


def _reshape(field: Field, out: Shape, axes: int) -> Field:
    dims = _split_atoms([a for atoms in field.dims for a in atoms], out, axes)
    return everywhere(out, axes) if dims is None else Field(dims, field.span)


def _select(field: Field, select: Select, out: Shape, axes: int) -> Field:
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
    return Field(tuple(dims), span)


def _pad(field: Field, pad: Pad, out: Shape) -> Field:
    axes = len(field.span)
    span = field.span
    dims = list(field.dims)
    for dim, before in enumerate(pad.before):
        if _length(dims[dim]) == out[dim] and not before:
            continue
        steps = _single(field, dim)
        if steps is None:
            return everywhere(out, axes)
        span = _widen(span, steps, -before, -before)
        dims[dim] = ((out[dim], steps),)
    return Field(tuple(dims), span)


def _resize(field: Field, resize: Resize, shape: Shape, out: Shape) -> Field:
    axes = len(field.span)
    span = field.span
    dims = list(field.dims)
    n = len(resize.new)
    for i, step in enumerate(map(float, resize.steps)):
        dim = len(dims) - n + i
        steps = _single(field, dim)
        if shape[dim] == 1:
            dims[dim] = _flat(out[dim], axes)
            continue
        if steps is None:
            return everywhere(out, axes)
        if step != 1:
            # The union of what the phases read around the place that lies evenly.
            reads = [(o, resize.reads(i, o)) for o in range(resize.steps[i].denominator)]
            first = min(read[0] - o * step for o, read in reads)
            span = _widen(span, steps, first, max(read[-1] - o * step for o, read in reads))
        dims[dim] = ((out[dim], tuple(s * step for s in steps)),)
    return Field(tuple(dims), span)


def _shuffle(field: Field, r: int, shape: Shape, out: Shape, axes: int) -> Field:
    *batch, _, height, width = shape
    n = len(batch)
    split = _reshape(field, (*batch, out[-3], r, r, height, width), axes)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return _reshape(Field(tuple(split.dims[d] for d in order), split.span), out, axes)


def _slide(field: Field, slide: Slide, out: Shape, axes: int) -> Field:
    steps = _single(field, slide.dim)
    if steps is None:
        return everywhere(out, axes)
    dims = list(field.dims)
    dims[slide.dim] = ((out[slide.dim], tuple(s * slide.step for s in steps)),)
    return Field((*dims, ((out[-1], steps),)), field.span)


def attend(row: Operation, sources: list[tuple[Field, Shape]], axes: int) -> Field:
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
    return union([_aligned(a, out, axes), _aligned(b, out, axes)], out, axes)


def union(fields: list[Field], out: Shape, axes: int) -> Field:
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
            a, b = _single(Field(tuple(dims), first.span), i), _single(other, i)
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
    return Field(tuple(dims), tuple(span))
