"""One rule per operation: the output's shape, the arithmetic and how positions map."""

from . import attention, create, elementwise, index, leaves, matrix, norm, reduce, resample, shape, window

__all__ = [
    "attention",
    "create",
    "elementwise",
    "index",
    "leaves",
    "matrix",
    "norm",
    "reduce",
    "resample",
    "shape",
    "window",
]
