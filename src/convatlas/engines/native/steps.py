"""A step of a network as C++ reads it (`step.h`), and the library that runs steps."""

from __future__ import annotations

import ctypes
import enum
import functools

from convatlas.engines.backend import EngineError
from convatlas.native import SOURCES, CompilerError, compiled

SOURCE = SOURCES / "infer" / "net.cpp"
FLAGS = ("-pthread",)


class Kind(enum.IntEnum):
    """What a step does, numbered as in `step.h`."""

    CONV = 0
    DEPTHWISE = 1
    MAX_POOL = 2
    AVERAGE_POOL = 3
    MEAN = 4
    ADD = 5
    GATE = 6
    AFFINE = 7
    COPY = 8


class Activation(enum.IntEnum):
    """What is done to each value at a step's end, numbered as in `vector.h`."""

    NONE = 0
    CLIP = 1
    SIGMOID = 2
    SILU = 3
    TANH = 4


BY_MATRIX_UNIT = 16
"""The method of convolutions that `matrix.h` has."""


class Map(ctypes.Structure):
    """A feature map in the arena, as `step.h` has it."""

    _fields_ = [(name, ctypes.c_int64) for name in ("at", "height", "width", "chans", "pitch")]


class Step(ctypes.Structure):
    """A step, as `step.h` has it."""

    _fields_ = [
        ("kind", ctypes.c_int64),
        ("input", Map),
        ("output", Map),
        *(
            (name, ctypes.c_int64)
            for name in (
                "other_at",
                "other_pitch",
                "gate_at",
                "gate_pitch",
                "kernel_h",
                "kernel_w",
                "stride_h",
                "stride_w",
                "pad_top",
                "pad_left",
                "groups",
                "activation",
                "relu_first",
                "average_border",
                "border_h",
                "border_w",
                "chained",
                "method",
                "block",
            )
        ),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale", "shift")),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled engine for this processor; it is compiled once, which takes some seconds, and kept.

    Raises:
        EngineError: there is no compiler, or it fails.
    """
    try:
        found = compiled(SOURCE, FLAGS)
    except CompilerError as error:
        raise EngineError(str(error)) from None
    c_long, pointer = ctypes.c_long, ctypes.c_void_p
    found.net_new.restype = pointer
    found.net_new.argtypes = [c_long, c_long, c_long, c_long, Map, Map, c_long, c_long, c_long, c_long]
    found.net_add.argtypes = [pointer, ctypes.POINTER(Step)]
    found.net_prepare.argtypes = found.net_free.argtypes = [pointer]
    found.net_tune.argtypes = [pointer, c_long, pointer]
    found.net_run.argtypes = [pointer, pointer, c_long, c_long, pointer]
    if found.net_step_size() != ctypes.sizeof(Step):
        raise EngineError(f"{SOURCE.name} and `Step` belong to different versions")
    return found
