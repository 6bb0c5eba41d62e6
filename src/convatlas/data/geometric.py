"""Moving and covering pixels of a batch, each sample by its own draws.

What decides about a pixel is computed in double precision or by single roundings, so that a sample comes out
the same to the bit in any batch.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data.augment import Affine, Erase, PadCrop

Draw = Callable[[str, int], NDArray[np.float64]]
"""Gives, for a purpose and a count, numbers in [0, 1): (B, count)."""

TRIES = 10
"""Rectangles that are drawn until one fits, as in torchvision."""


def random_crop(images: Tensor, uniforms: NDArray[np.float64], pad_crop: PadCrop) -> Tensor:
    """Cuts a random part of the old size out of the padded images.

    Args:
        images: (B, C, H, W).
        uniforms: (B, 2) in [0, 1), for the top and the left.
        pad_crop: how they are padded.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: the images are too small for the padding.
    """
    height, width = images.shape[-2:]
    pad = pad_crop.pad
    if pad_crop.mode == "zeros":
        padded = F.pad(images, (pad,) * 4)
    elif pad < min(height, width):
        rows, columns = (_mirrored(size, pad, images.device) for size in (height, width))
        padded = images.index_select(2, rows).index_select(3, columns)
    else:
        raise ValueError(
            f"`pad`={pad}; images of {height}x{width} px can be mirrored by {min(height, width) - 1} at most"
        )
    corners = torch.from_numpy((uniforms * (2 * pad + 1)).astype(np.int64)).to(images.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2 pad + 1, 2 pad + 1, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, corners[:, 0], corners[:, 1]]


def _mirrored(size: int, pad: int, device: torch.device) -> Tensor:
    """Where each px of a padded axis comes from: (size + 2 pad,)."""
    places = torch.arange(-pad, size + pad, device=device).abs()
    return (size - 1) - ((size - 1) - places).abs()


def random_flip(images: Tensor, uniforms: NDArray[np.float64], rate: float) -> Tensor:
    """Mirrors a share of the images (B, C, H, W) left to right, by draws (B, 1) in [0, 1)."""
    batch = len(images)
    rows = np.arange(batch) + batch * (uniforms[:, 0] < rate)
    # Whole images are picked: five times as fast as to choose for each px.
    both = torch.cat([images, images.flip(3)])
    return both.index_select(0, torch.from_numpy(rows).to(images.device))


def random_affine(images: Tensor, uniforms: NDArray[np.float64], affine: Affine) -> Tensor:
    """Turns, scales, shears and shifts each image; what comes in from outside is 0.

    Args:
        images: (B, C, H, W).
        uniforms: (B, 5) in [0, 1), for angle, size, shear, shift to the right and down.
        affine: the largest amounts.

    Returns:
        (B, C, H, W) of float32.
    """
    height, width = images.shape[-2:]
    angle, log_scale, slant, right, down = (uniforms * 2.0 - 1.0).T
    size = np.exp(log_scale * affine.scale)
    cos, sin = (f(angle * math.radians(affine.degrees)) * size for f in (np.cos, np.sin))
    # Coordinates run from -1 to 1 over the image, as `grid_sample` wants them.
    matrices = np.stack(
        [
            *(cos, slant * affine.shear - sin, right * (2.0 * affine.shift / width)),
            *(sin, cos, down * (2.0 * affine.shift / height)),
        ]
    )
    xx, xy, x0, yx, yy, y0 = torch.from_numpy(matrices.astype(np.float32)).to(images.device)[..., None, None]
    columns, rows = (
        (torch.arange(count, dtype=torch.float32, device=images.device) * 2.0 + 1.0) / count - 1.0
        for count in (width, height)
    )
    rows = rows[:, None]
    grid = torch.stack([xx * columns + xy * rows + x0, yx * columns + yy * rows + y0], dim=3)  # (B, H, W, 2)
    return F.grid_sample(images.float(), grid, align_corners=False)


def erase(images: Tensor, draw: Draw, how: Erase) -> None:
    """Sets a random rectangle of some images (B, C, H, W) to 0, in place."""
    height, width = images.shape[-2:]
    sides = draw("erase size", 2 * TRIES)
    heights, widths, fits = fitting_boxes(sides, how.area, how.ratio, height, width)
    place = draw("erase", 3)
    tops, lefts = (
        (place[:, 1] * (height - heights + 1)).astype(np.int64),
        (place[:, 2] * (width - widths + 1)).astype(np.int64),
    )
    heights = heights * (fits & (place[:, 0] < how.rate))
    _clear(images, tops, tops + heights, lefts, lefts + widths)


def cut_out(images: Tensor, uniforms: NDArray[np.float64], size: int) -> None:
    """Sets a square to 0, in place; its middle is any px, so that a part of it may lie outside.

    Args:
        images: (B, C, H, W).
        uniforms: (B, 2) in [0, 1), for the middle.
        size: px a side.

    Source: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
    """
    tops, lefts = (uniforms * np.array(images.shape[-2:])).astype(np.int64).T - size // 2
    _clear(images, tops, tops + size, lefts, lefts + size)


def fitting_boxes(
    uniforms: NDArray[np.float64],
    area: tuple[float, float],
    ratio: tuple[float, float],
    height: int,
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The first of some rectangles of random area and shape that fits into an image.

    Args:
        uniforms: (B, 2 * tries) in [0, 1): areas, then shapes.
        area: smallest and largest share of the image's area.
        ratio: smallest and largest height / width; its logarithm is what is uniform.
        height: of the image, px.
        width: of the images, in px.

    Returns:
        Heights and widths in px, each (B,), and whether any of the tries fitted; else the sides are 1.
    """
    areas, shapes = np.split(uniforms, 2, axis=1)
    areas = (area[0] + areas * (area[1] - area[0])) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shapes = np.exp(low + shapes * (high - low))
    heights, widths = (np.rint(np.sqrt(area)).astype(np.int64) for area in (areas * shapes, areas / shapes))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    chosen = fits.argmax(axis=1)[:, None]
    found = np.asarray(fits.any(axis=1))
    heights, widths = (
        np.where(found, np.take_along_axis(sides, chosen, axis=1)[:, 0], 1) for sides in (heights, widths)
    )
    return heights, widths, found


def box_mask(
    tops: NDArray[np.int64],
    bottoms: NDArray[np.int64],
    lefts: NDArray[np.int64],
    rights: NDArray[np.int64],
    height: int,
    width: int,
) -> Tensor:
    """True in a rectangle of each image: (B, 1, H, W). What lies outside of the image is left out."""
    rows, columns = np.arange(height), np.arange(width)
    in_rows = (rows >= tops[:, None]) & (rows < bottoms[:, None])
    in_columns = (columns >= lefts[:, None]) & (columns < rights[:, None])
    return torch.from_numpy(in_rows[:, None, :, None] & in_columns[:, None, None, :])


def _clear(
    images: Tensor,
    tops: NDArray[np.int64],
    bottoms: NDArray[np.int64],
    lefts: NDArray[np.int64],
    rights: NDArray[np.int64],
) -> None:
    mask = box_mask(tops, bottoms, lefts, rights, images.shape[2], images.shape[3])
    images.masked_fill_(mask.to(images.device), 0.0)
