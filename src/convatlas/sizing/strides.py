"""Where the elements of a tensor lie: what decides whether a reshape is a view or has to copy."""

from __future__ import annotations

Sizes = tuple[int, ...]


def dense(shape: Sizes) -> Sizes:
    """Strides of a tensor whose elements lie in order."""
    steps, step = [1] * len(shape), 1
    for i in range(len(shape) - 1, -1, -1):
        steps[i] = step
        step *= max(shape[i], 1)
    return tuple(steps)


def known(shape: Sizes, strides: Sizes) -> Sizes | None:
    """The strides, or None where the elements lie in order (a dimension of size 1 lies as it likes)."""
    same = all(a == b or n == 1 for n, a, b in zip(shape, strides, dense(shape), strict=True))
    return None if same else strides


def like(shape: Sizes, strides: Sizes | None) -> Sizes | None:
    """Strides of a new tensor of this shape that arithmetic makes from one with these strides.

    The order of the dimensions in memory is kept; gaps and repetitions are not.
    """
    if strides is None:
        return None
    order = sorted(range(len(shape)), key=lambda i: (-strides[i], i))
    packed = dense(tuple(shape[i] for i in order))
    out = [0] * len(shape)
    for step, i in zip(packed, order, strict=True):
        out[i] = step
    return known(shape, tuple(out))


def viewed(shape: Sizes, strides: Sizes, wanted: Sizes) -> Sizes | None:
    """Strides of the same storage under another shape; None if there are none, so that it must be copied."""
    if not wanted or 0 in shape:
        return dense(wanted)
    blocks: list[tuple[int, int]] = []
    for n, step in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if blocks and blocks[-1][1] == n * step:
            blocks[-1] = (blocks[-1][0] * n, step)
        else:
            blocks.append((n, step))
    out: list[int] = []
    left, step = 1, 1
    for n in reversed(wanted):
        if n > 1 and left == 1:
            left, step = blocks.pop()
        if left % n:
            return None
        out.append(step)
        left //= n
        step *= n
    return tuple(reversed(out))
