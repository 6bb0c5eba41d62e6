"""Applies the augmentation that works on a whole batch of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data import colour, geometric
from convatlas.data.augment import Augment
from convatlas.data.counter_random import uniform


def augment_batch(
    images: Tensor,
    samples: NDArray[np.int64],
    *,
    augment: Augment,
    seed: int,
    epoch: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Applies the operations that work on a batch, and normalises.

    Args:
        images: (B, C, H, W) of uint8; left as they are.
        samples: index of each image in the data set, (B,).
        augment: what may happen.
        seed: of the run.
        epoch: counted from 0.
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.

    Returns:
        (B, C, H, W) of float32, channels-last in memory.

    Raises:
        ValueError: the padding does not fit the size, or colours are asked of images that have none.
    """

    def draw(purpose: str, count: int) -> NDArray[np.float64]:
        return uniform(seed, epoch, samples, purpose, count)

    if augment.pad_crop is not None:
        images = geometric.random_crop(images, draw("crop", 2), augment.pad_crop)
    if augment.flip > 0.0:
        images = geometric.random_flip(images, draw("flip", 1), augment.flip)
    if augment.affine is not None:
        images = geometric.random_affine(images, draw("affine", 5), augment.affine)
    if augment.colour_jitter is None and augment.lighting == 0.0:
        x = colour.normalise(images, mean, std)
    else:
        x = colour.recolour(images, draw, augment.colour_jitter, augment.lighting, mean, std)
    if augment.erase is not None:
        geometric.erase(x, draw, augment.erase)
    if augment.cutout:
        geometric.cut_out(x, draw("cutout", 2), augment.cutout)
    return x
