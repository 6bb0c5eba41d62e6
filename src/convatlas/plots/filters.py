"""Kernels of a convolution as tiles: colours where it reads colours, signed numbers elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from convatlas.drawing.canvas import MARGIN, Canvas, fitted
from convatlas.drawing.figure import Figure, finish
from convatlas.drawing.frame import Captions, heading
from convatlas.drawing.palette import PALETTES, THEMES
from convatlas.errors import unknown
from convatlas.escape import plain
from convatlas.plots.pixels import SIGNED, Pixels, coloured, enlarged, png_bytes, signed, tiled

_WIDE = 640
"""Px that a row of tiles may take."""
_GAP = 4
_LARGEST_TILE, _LEAST_TILE = 64, 12
_MOST = 1024
"""Tiles of one figure."""


def draw_filters(
    net: nn.Module, *, layer: str | None = None, title: str = "", theme: str = "light"
) -> Figure:
    """Draws the kernels of a convolution, each on a scale of its own on which 0 is grey.

    Args:
        net: any module.
        layer: path of a convolution; None for the first.
        title: on top; the class of the network where not given.
        theme: light, dark or print.

    Returns:
        A colour tile for each kernel where the convolution reads one or three channels; else a row for each
        kernel, with a tile for each channel that it reads.

    Raises:
        UnknownNameError: there is no such convolution, or no such theme; names the nearest.
        ValueError: the network has no convolution over two axes, or its weights are on the meta device.
    """
    if theme not in THEMES:
        raise unknown("theme", theme, THEMES)
    path, conv = _find(net, layer)
    weight = conv.weight.detach()
    if weight.is_meta:
        raise ValueError("`net` is on the meta device, so that its weights have no values")
    kernels = weight.float().cpu().numpy().astype(np.float64)
    if isinstance(conv, nn.ConvTranspose2d):
        kernels = kernels.swapaxes(0, 1)
    if not np.isfinite(kernels).all():
        raise ValueError(f"`layer`={path!r}: weights are NaN or infinite")
    count, chans, high, wide = kernels.shape
    colour = chans in (1, 3) and conv.groups == 1
    columns = _columns(count, wide) if colour else min(chans, max(_WIDE // (_LEAST_TILE + _GAP), 1))
    shown = min(count, _MOST) if colour else min(count, max(_MOST // columns, 1), 48)
    tiles = [tile for kernel in kernels[:shown] for tile in _tiles(kernel, colour, columns)]
    facts = [f"{count} kernels {chans}×{high}×{wide} of {plain(path) or 'the network itself'}"]
    facts.append("grey is 0; each kernel on its own scale" if colour and chans == 3 else _SIGNS)
    if not colour:
        column = "a channel" if columns == chans else f"one of the first {columns} of {chans} channels"
        facts.append(f"a row is a kernel, a column {column}")
    if shown < count:
        facts.append(f"the first {shown} of them")
    return _drawn(tiles, columns, (title or type(net).__name__, tuple(facts)), theme, colour)


_SIGNS = "purple is above 0, orange below; each kernel on its own scale"


def _find(net: nn.Module, layer: str | None) -> tuple[str, nn.Conv2d | nn.ConvTranspose2d]:
    convolutions = {
        path: module
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    }
    if not convolutions:
        raise ValueError(f"`net`: {type(net).__name__} has no convolution over two axes")
    if layer is None:
        return next(iter(convolutions.items()))
    if layer not in convolutions:
        raise unknown("convolution", layer, convolutions)
    return layer, convolutions[layer]


def _columns(count: int, wide: int) -> int:
    """Tiles in a row: as many as fit, in rows as even as can be."""
    fits = max(_WIDE // (max(_factor(wide) * wide, 1) + _GAP), 1)
    rows = -(-count // fits)
    return -(-count // rows)


def _factor(wide: int) -> int:
    return max(_LARGEST_TILE // wide if wide < 8 else 40 // wide, 1)


def _tiles(kernel: NDArray[np.float64], colour: bool, columns: int) -> list[Pixels]:
    """One kernel (C, H, W): a tile of its colours, or a tile for each channel."""
    most = float(np.abs(kernel).max())
    values = signed(kernel, most)
    if colour and len(kernel) == 3:
        return [np.round(255.0 * values.transpose(1, 2, 0)).astype(np.uint8)]
    return [coloured(channel, SIGNED) for channel in values[:columns]]


def _drawn(
    tiles: list[Pixels], columns: int, captions: tuple[str, tuple[str, ...]], theme: str, colour: bool
) -> Figure:
    factor = _factor(tiles[0].shape[1]) if colour else max((_LEAST_TILE + 4) // tiles[0].shape[1], 1)
    background = PALETTES[theme].background
    rgb = int(background[1:3], 16), int(background[3:5], 16), int(background[5:7], 16)
    sheet = tiled([enlarged(tile, factor) for tile in tiles], columns, _GAP, rgb)
    canvas = Canvas()
    rows = -(-len(tiles) // columns)
    step = sheet.shape[0] if rows == 1 else (sheet.shape[0] + _GAP) / rows
    each = columns if colour else 1
    left = MARGIN + fitted([("t11", f"{(rows - 1) * each:,}")], 0) + 8
    room = max(sheet.shape[1] + left - MARGIN, 560)
    top = heading(canvas, Captions(plain(captions[0]), captions[1]), room) - 8
    canvas.image(left, top, sheet.shape[1], sheet.shape[0], png_bytes(sheet))
    every = max(1, round(16 / step + 0.49))
    for row in range(0, rows, every):
        middle = top + row * step + (step - _GAP) / 2
        canvas.text("t11 m", left - 8, middle, f"{row * each:,}", "end")
    return finish(canvas, captions[0], f"Kernels of a convolution: {'; '.join(captions[1])}.", theme)
