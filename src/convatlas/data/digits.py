"""The embedded data set: 1,797 real handwritten digits of 8x8 px, brought to LeNet-5's 32x32.

Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), the part that
scikit-learn ships.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

GRID = 8
"""Px a side of the original digits."""

BOX_SIZE = 28
"""Px a side that a digit fills in the 32 px image, as the paper centres its 28 px fields."""

IMAGE_SIZE = 32


def read_digits() -> tuple[Tensor, Tensor]:
    """All digits: images (1797, 1, 32, 32) of uint8, ink 255 on 0, and labels (1797,)."""
    with gzip.open(_file(), "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    grids, labels = rows[:, :-1].reshape(-1, GRID, GRID), rows[:, -1].astype(np.int64)
    return enlarge(torch.from_numpy(grids / 16.0)), torch.from_numpy(labels)


def _file() -> Path:
    # scikit-learn is found, not imported: its import takes seconds, and its reader does no more than this.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install scikit-learn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def enlarge(grids: Tensor) -> Tensor:
    """Brings grids of ink (N, 8, 8) in [0, 1] to images (N, 1, 32, 32) of uint8."""
    images = F.interpolate(grids[:, None], size=(BOX_SIZE, BOX_SIZE), mode="bilinear", align_corners=False)
    margin = (IMAGE_SIZE - BOX_SIZE) // 2
    return F.pad(images, (margin,) * 4).mul(255.0).round().to(torch.uint8)


def digit_from_image(image: Image.Image) -> Tensor:
    """Makes an image of one digit look like the training data.

    The paper is what the rim shows; ink is what differs from it, so dark on light and light on dark
    both work. The ink is cut out, scaled to fill the 8x8 grid as the original digits do (their height
    or width is 8), centred, and enlarged as they are.

    Args:
        image: grey or RGB, of any size.

    Returns:
        (1, 32, 32) of uint8, ink 255 on 0.

    Raises:
        ValueError: the image is all of one colour.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(rim))
    if ink.max() < 0.05:
        raise ValueError("all of one colour: there is no digit on it")
    ink = ink / ink.max()
    rows, cols = (np.flatnonzero((ink > 0.35).any(axis=axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return enlarge(_to_grid(torch.from_numpy(ink)))[0]


def _to_grid(ink: Tensor) -> Tensor:
    """Scales a cut-out (H, W) into the 8x8 grid, its longer side filling it: (1, 8, 8) in [0, 1]."""
    height, width = ink.shape
    side = max(height, width)
    square = torch.zeros(side, side)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = ink
    grid = F.interpolate(square[None, None], size=(GRID, GRID), mode="area")[0]
    return grid / grid.max()
