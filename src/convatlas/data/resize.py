"""Resizing one image, and cutting out its middle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP = 16
"""Of an image longer than so many times its short side, the ends are cut off before it is resized, or one of
1 x 20,000 px would grow to gigabytes; the middle that is kept at last lies well within."""


def central_crop(image: Tensor, size: tuple[int, int], crop_pct: float, interpolation: str) -> Tensor:
    """Resizes the short side and cuts out the middle.

    Args:
        image: (C, H, W) of uint8.
        size: height and width of the result, px.
        crop_pct: share of the resized short side that is kept.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (C, *size) of uint8.
    """
    longest = STRIP * min(image.shape[1:])
    image = _middle(image, (min(image.shape[1], longest), min(image.shape[2], longest)))
    return _centre(_resize_short(image, size, crop_pct, interpolation), size)


def _resize_short(image: Tensor, size: tuple[int, int], share: float, interpolation: str) -> Tensor:
    """Resizes as torchvision's `Resize(round(max(size) / share))`: the long side is cut to whole px."""
    height, width = image.shape[1:]
    short = max(1, round(max(size) / share))
    long = int(short * max(height, width) / min(height, width))
    sides = (short, long) if height <= width else (long, short)
    return resize(image, (max(size[0], sides[0]), max(size[1], sides[1])), interpolation)


def _centre(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts out the middle as torchvision's `CenterCrop`, which rounds halves to even."""
    top, left = (round((have - want) / 2.0) for have, want in zip(image.shape[1:], size, strict=True))
    return image[:, top : top + size[0], left : left + size[1]]


def _middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def resize(image: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resizes an image.

    Args:
        image: (C, H, W) of uint8.
        size: height and width of the result, px.
        interpolation: "bilinear" or "bicubic" (as wide as the pixels of the result, as Pillow's), "nearest"
            or "area".

    Returns:
        (C, *size) of uint8.

    Raises:
        ValueError: the interpolation is unknown.
    """
    if tuple(image.shape[1:]) == size:
        return image
    # Added so, the dimension hides the layout of no image: torch is twice as fast on channels-last bytes.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    match interpolation:
        case "bilinear" | "bicubic":
            out = F.interpolate(batch, size=size, mode=interpolation, antialias=True)
        case "nearest":
            out = F.interpolate(batch, size=size, mode="nearest-exact")
        case "area":
            out = F.interpolate(batch.float(), size=size, mode="area").round().to(torch.uint8)
        case _:
            raise ValueError(
                f"`interpolation`={interpolation!r}; allowed are 'bilinear', 'bicubic', 'nearest', 'area'"
            )
    return out[0]
