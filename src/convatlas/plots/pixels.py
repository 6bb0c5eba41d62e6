"""Pixels for figures: PNG files, colours of heat and of signed numbers, contour lines, grids of tiles."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
HEAT, SIGNED = "inferno", "PuOr"
"""Colour maps whose order colour-blind readers and grey prints keep."""


def png_bytes(pixels: Pixels) -> bytes:
    """A PNG file of (H, W) or (H, W, 3) of uint8."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png")
    return buffer.getvalue()


def coloured(values: NDArray[np.float64], name: str = HEAT) -> Pixels:
    """Values in [0, 1] in the colours of a colour map: (...) to (..., 3) of uint8."""
    from matplotlib import colormaps

    return np.round(255.0 * colormaps[name](np.clip(values, 0.0, 1.0))[..., :3]).astype(np.uint8)


def signed(values: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Signed values as [0, 1], 0 being 0.5; `most` becomes 1 and its negative 0."""
    return 0.5 + 0.5 * np.clip(values / most if most > 0.0 else np.zeros_like(values), -1.0, 1.0)


def overlay(image: Pixels, heat: NDArray[np.float64]) -> Pixels:
    """An image in grey with heat over it; where there is none the grey stays.

    Args:
        image: (H, W, 3).
        heat: (H, W) in [0, 1].
    """
    # The dark end of the colours is left out, since it would hide the image.
    colours = coloured(0.3 + 0.6 * heat) / 255.0
    grey = image.mean(axis=2, keepdims=True) / 255.0
    alpha = 0.75 * np.clip(heat, 0.0, 1.0)[..., None]
    return np.round(255.0 * ((1.0 - alpha) * (0.15 + 0.8 * grey) + alpha * colours)).astype(np.uint8)


def contour(values: NDArray[np.float64], level: float) -> list[list[tuple[float, float]]]:
    """Lines where values pass a level, as (x, y) in px of the array."""
    from contourpy import contour_generator

    # A border of the lowest value closes lines that would end at the edge.
    padded = np.pad(values, 1, constant_values=float(values.min()) - 1.0)
    lines: Sequence[NDArray[np.float64]] = contour_generator(z=padded).lines(level)  # pyright: ignore[reportAssignmentType]
    height, width = values.shape
    return [
        [(min(max(float(x) - 0.5, 0.0), width), min(max(float(y) - 0.5, 0.0), height)) for x, y in line]
        for line in lines
    ]


def tiled(tiles: Sequence[Pixels], columns: int, gap: int, background: tuple[int, int, int]) -> Pixels:
    """Tiles of one size in rows, row by row.

    Args:
        tiles: each (H, W, 3).
        columns: tiles in a row.
        gap: px between tiles.
        background: colour between them.
    """
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    sheet = np.empty((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
    sheet[:] = background
    for number, tile in enumerate(tiles):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def enlarged(pixels: Pixels, factor: int) -> Pixels:
    """Each px as a square of `factor` px."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
