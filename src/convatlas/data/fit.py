"""Images that are not square: how one becomes the square that a network sees."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from convatlas.data.resize import central_crop, resize

Fit = Literal["crop", "pad", "squash", "tiles"]
"""The middle is cut out; the whole is padded; the whole is scaled to a square; squares that cover it."""
FITS: tuple[Fit, ...] = get_args(Fit)

MOST_TILES = 8
SLACK = 0.05
"""An image at most so much longer than high counts as square."""


def check_fit(fit: object) -> None:
    """Refuses another word.

    Raises:
        ValueError: it is none of `FITS`.
    """
    if fit not in FITS:
        raise ValueError(f"`fit`={fit!r}; allowed are {', '.join(map(repr, FITS))}")


def count_tiles(height: int, width: int) -> int:
    """Squares of the short side that cover an image, 8 at most, which then leave gaps."""
    ratio = max(height, width) / min(height, width)
    return min(MOST_TILES, max(1, math.ceil(ratio - SLACK)))


def cut_tile(image: Tensor, place: float) -> Tensor:
    """A square of the short side.

    Args:
        image: (C, H, W).
        place: along the long side, from 0 for one end to 1 for the other.
    """
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = round(place * (height - side)), round(place * (width - side))
    return image[:, top : top + side, left : left + side]


def fit_image(
    image: Tensor,
    size: tuple[int, int],
    fit: Fit,
    *,
    crop_pct: float,
    interpolation: str,
    fill: tuple[int, ...] = (),
    view: int = 0,
) -> Tensor:
    """Brings one image to size.

    Args:
        image: (C, H, W) of uint8.
        size: height and width of the result, px.
        fit: how.
        crop_pct: of "crop": share of the resized short side that is kept.
        interpolation: "bilinear" or "bicubic".
        fill: of "pad": value of each channel where the image does not reach; () for black.
        view: of "tiles": which one, from 0 to `count_tiles` - 1.

    Returns:
        (C, *size) of uint8.
    """
    height, width = image.shape[1:]
    if fit == "crop":
        return central_crop(image, size, crop_pct, interpolation)
    if fit == "squash":
        return resize(image, size, interpolation)
    if fit == "tiles":
        count = count_tiles(height, width)
        return resize(cut_tile(image, view / (count - 1) if count > 1 else 0.5), size, interpolation)
    factor = min(size[0] / height, size[1] / width)
    inner = (min(size[0], max(1, round(height * factor))), min(size[1], max(1, round(width * factor))))
    return padded(resize(image, inner, interpolation), size, fill)


def padded(image: Tensor, size: tuple[int, int], fill: tuple[int, ...]) -> Tensor:
    """Lays an image (C, h, w) in the middle of (C, *size), which is filled with one colour."""
    if tuple(image.shape[1:]) == size:
        return image
    chans, height, width = image.shape
    colour = torch.tensor(fill or (0,) * chans, dtype=image.dtype)
    # Channels-last in memory, as decoded images lie.
    out = colour.expand(size[0], size[1], chans).contiguous().permute(2, 0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    out[:, top : top + height, left : left + width] = image
    return out


def squared(
    image: Tensor, fit: Fit, *, px: int, interpolation: str, fill: tuple[int, ...], place: float
) -> Tensor:
    """What a random crop of training is taken from: the whole for "crop", else a square.

    Args:
        image: (C, H, W) of uint8.
        fit: how.
        px: a side of what training sees.
        interpolation: "bilinear" or "bicubic".
        fill: of "pad": value of each channel.
        place: of "tiles": where along the long side, 0 to 1.
    """
    side = max(image.shape[1:])
    if fit == "crop" or image.shape[1] == image.shape[2]:
        return image
    if fit == "pad":
        return padded(image, (side, side), fill)
    if fit == "squash":
        side = min(side, 2 * px)
        return resize(image, (side, side), interpolation)
    return cut_tile(image, place)
