"""A network in steps, before its maps have places in memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from convatlas.engines.native.steps import Activation, Kind

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(eq=False)
class Value:
    """A feature map: height, width, channels; a vector is a map of one pixel.

    Attributes:
        parts: the maps that it consists of, where it is a concatenation.
        owner: a larger map that it is a part of, with the channel at which it begins there.
        padded: px (top, left, bottom, right) that an operation is still to see around it.
        base: the map that lies within the padding.
    """

    height: int
    width: int
    chans: int
    parts: tuple[Value, ...] = ()
    owner: tuple[Value, int] | None = None
    padded: tuple[int, int, int, int] = (0, 0, 0, 0)
    base: Value | None = None


@dataclasses.dataclass(eq=False)
class Op:
    """A step before maps have places.

    Attributes:
        window: kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left.
        activation: kind, low and high.
        average: for averages: whether padding counts, and height and width with padding.
        chained: whether it may be computed together with the next step, which alone reads what it writes.
    """

    kind: Kind
    input: Value
    output: Value
    other: Value | None = None
    gate: Value | None = None
    window: tuple[int, int, int, int, int, int] = (1, 1, 1, 1, 0, 0)
    groups: int = 1
    activation: tuple[Activation, float, float] = (Activation.NONE, 0.0, 0.0)
    relu_first: bool = False
    average: tuple[bool, int, int] = (False, 0, 0)
    weight: Array | None = None
    bias: Array | None = None
    scale: Array | None = None
    shift: Array | None = None
    chained: bool = False

    def reads(self) -> list[Value]:
        """The maps that it reads."""
        return [value for value in (self.input, self.other, self.gate) if value is not None]

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a convolution of single pixels, all of them."""
        return self.kind == Kind.CONV and self.window == (1, 1, 1, 1, 0, 0) and self.groups == 1

    @property
    def changes_input(self) -> bool:
        """Whether it does more to what it reads than to multiply it by weights."""
        return self.scale is not None or self.gate is not None or self.relu_first


@dataclasses.dataclass
class Program:
    """A network in steps.

    Attributes:
        ops: in order.
        images: what comes in.
        logits: what goes out.
        border: px of zeros around the images as they lie in the arena: top, left, bottom, right.
    """

    ops: list[Op]
    images: Value
    logits: Value
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
