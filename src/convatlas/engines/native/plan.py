"""Where each map of a program lies in memory."""

from __future__ import annotations

import dataclasses
import itertools

from convatlas.engines.native.fusing import readers
from convatlas.engines.native.program import Op, Program, Value
from convatlas.engines.native.steps import Kind

LINE = 16
"""Floats of a cache line; each map begins at one."""


@dataclasses.dataclass(frozen=True)
class Spot:
    """Where a map lies, for one image.

    Attributes:
        at: floats before the map that holds it; times the images.
        chan: first channel within that map.
        pitch: channels of that map.
    """

    at: int
    chan: int
    pitch: int


def place_maps(program: Program) -> tuple[dict[Value, Spot], int]:
    """Gives each map a place, such that concatenations need no copies and dead maps make room.

    Where a part of a concatenation has to lie elsewhere, a step that copies it is put into the program.
    Steps that may be computed together are marked.

    Returns:
        The places, and the floats of all maps of one image.
    """
    _join_parts(program)
    _chain(program)
    lives = _lives(program)
    sizes = {root: -(-root.height * root.width * root.chans // LINE) * LINE for root in lives}
    starts: dict[Value, int] = {}
    for root in sorted(lives, key=lambda root: -sizes[root]):
        taken = sorted(
            (starts[other], starts[other] + sizes[other])
            for other in starts
            if lives[root][0] <= lives[other][1] and lives[other][0] <= lives[root][1]
        )
        start = 0
        for first, end in taken:
            if start + sizes[root] <= first:
                break
            start = max(start, end)
        starts[root] = start
    total = max((starts[root] + sizes[root] for root in starts), default=0)
    spots: dict[Value, Spot] = {}
    for op in program.ops:
        for value in (*op.reads(), op.output, program.images, program.logits):
            root, chan = _root(value)
            spots[value] = Spot(starts[root], chan, root.chans)
    return spots, total


def _root(value: Value) -> tuple[Value, int]:
    """The largest map that a map is a part of, and its first channel there."""
    chan = 0
    while value.owner is not None:
        value, offset = value.owner[0], chan + value.owner[1]
        chan = offset
    return value, chan


def _join_parts(program: Program) -> None:
    """Makes each concatenation the owner of its parts; the last ones first, as they hold the earlier ones."""
    whole = [value for value in _values(program) if value.parts]
    for value in reversed(whole):
        if value.owner is None and _is_run(value):
            owner, first = value.parts[0].owner or (value, 0)
            value.owner = (owner, first)
            continue
        parts: list[Value] = []
        chan = 0
        for part in value.parts:
            if part.owner is not None or part is program.images or part in parts:
                part = _copied(program, part)
            part.owner = (value, chan)
            parts.append(part)
            chan += part.chans
        value.parts = tuple(parts)


def _is_run(value: Value) -> bool:
    """Whether the parts lie side by side in another map already."""
    first = value.parts[0].owner
    if first is None:
        return False
    owner, chan = first
    for part in value.parts:
        if part.owner is None or part.owner[0] is not owner or part.owner[1] != chan:
            return False
        chan += part.chans
    return True


def _copied(program: Program, part: Value) -> Value:
    """A copy of a map, made as soon as the map is there."""
    made = Value(part.height, part.width, part.chans)
    after = max((i for i, op in enumerate(program.ops) if _holds(part, op.output)), default=-1)
    program.ops.insert(after + 1, Op(Kind.COPY, part, made))
    return made


def _holds(value: Value, part: Value) -> bool:
    return value is part or any(_holds(inner, part) for inner in value.parts)


def _values(program: Program) -> list[Value]:
    """Every map, a concatenation after its parts."""
    found: dict[Value, None] = {}

    def visit(value: Value) -> None:
        if value not in found:
            for part in value.parts:
                visit(part)
            found[value] = None

    for op in program.ops:
        for value in op.reads():
            visit(value)
        visit(op.output)
    visit(program.logits)
    return list(found)


def _chain(program: Program) -> None:
    """Marks depthwise convolutions with the 1x1 convolutions before and behind them; none belongs to two."""
    times_read = readers(program)
    before: Op | None = None
    for op, after in itertools.pairwise(program.ops):
        kinds = (op.kind, after.kind) in ((Kind.CONV, Kind.DEPTHWISE), (Kind.DEPTHWISE, Kind.CONV))
        pointwise = op if op.kind == Kind.CONV else after
        is_taken = pointwise is op and before is not None and before.chained
        op.chained = (
            kinds
            and pointwise.is_pointwise
            and not pointwise.changes_input
            and not is_taken
            and after.input is op.output
            and times_read[op.output] == 1
            and op.output.owner is None
        )
        before = op


def _lives(program: Program) -> dict[Value, tuple[int, int]]:
    """For each map that is no part of another: the first and the last step that it is needed in."""
    lives: dict[Value, tuple[int, int]] = {}

    def needs(value: Value, step: int) -> None:
        root, _ = _root(value)
        first, last = lives.get(root, (step, step))
        lives[root] = (min(first, step), max(last, step))

    needs(program.images, -1)
    first = 0
    for step, op in enumerate(program.ops):
        # Of steps that are computed together, the last one writes while the first one still reads.
        last = step
        while program.ops[last].chained:
            last += 1
        for value in (*op.reads(), op.output):
            needs(value, first)
            needs(value, last)
        if not op.chained:
            first = step + 1
    needs(program.logits, len(program.ops))
    return lives
