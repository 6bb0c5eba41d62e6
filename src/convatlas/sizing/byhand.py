"""Counts as courses make them on paper, where they differ from what a program does."""

from __future__ import annotations

import torch

from .geometry import Window
from .operation import Operation
from .sizes import Sizes

_LAYERS = ("conv", "pool", "linear", "matmul")


def values_by_hand(sheet: Sizes) -> int:
    """Numbers that one writes into the margin of a network's table: its input and what each layer puts out.

    Layers are convolutions, poolings and fully connected layers (and matrix products). Activations and
    normalisations count as done in place, views and joins as moving nothing; a pooling whose window is one
    position changes nothing and is no layer. For VGG-16 at 224 px: 15,237,608 for one image.
    """
    inputs = sum(torch.Size(shape).numel() for shape in sheet.request.shapes)
    return inputs + sum(row.output_elements for row in sheet.trace.rows if _is_layer(row))


def _is_layer(row: Operation) -> bool:
    window = row.geometry
    if row.kind == "pool" and isinstance(window, Window) and set(window.kernel) == {1}:
        return row.output_shape != tuple(row.input_shapes[0])
    # A mean over all positions is a pooling under another name.
    return row.kind in _LAYERS or (row.kind == "reduce" and row.op == "mean")
