"""What a training step on a CPU computes in our C++, as Python calls it."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from convatlas.native import SOURCES, compiled

SOURCE = SOURCES / "train" / "train.cpp"
# torch's own team of threads is used: another one would wait for the same cores.
FLAGS = ("-fopenmp",)
HALF = torch.bfloat16
LAST = torch.channels_last


@functools.cache
def library() -> ctypes.CDLL:
    """What `native/train.cpp` makes; compiled once, which takes some seconds, and kept.

    Raises:
        CompilerError: there is no compiler with OpenMP, or it fails.
    """
    found = compiled(SOURCE, FLAGS)
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    act = [whole, real, real]
    matrix, affine = [whole, whole, whole], [pointer, pointer]
    layer = {"conv": [whole] * 8, "depthwise": [whole] * 9}
    found.train_norm_forward.argtypes = [
        *(pointer, pointer, pointer, *matrix, *affine, real, *act),
        *(pointer, real, pointer, pointer, whole),
    ]
    found.train_norm_backward.argtypes = [
        *(pointer,) * 5,
        *(*matrix, *affine, *act),
        *(pointer, pointer, pointer, whole),
    ]
    functions = [found.train_norm_forward, found.train_norm_backward]
    for name, sizes in layer.items():
        forward, backward = (getattr(found, f"train_{name}_{way}") for way in ("forward", "backward"))
        forward.argtypes = [*(pointer,) * 4, *sizes]
        backward.argtypes = [*(pointer,) * 5, *sizes]
        functions += [forward, backward]
    for function in functions:
        function.restype = None
    return found


def is_step(x: Tensor) -> bool:
    """Whether x (B, C, H, W) is of a training step on a CPU, in a type and layout that `library` takes.

    Tracers show tensors of their own kind, and get torch's functions.
    """
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, HALF)
        and x.dim() == 4
        and x.is_contiguous(memory_format=LAST)
        and torch.is_grad_enabled()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


def place(tensor: Tensor | None) -> int | None:
    """Where a tensor lies in memory; None for none."""
    return None if tensor is None else tensor.data_ptr()
