"""Augmentation of whole batches; each sample has its own draw, which depends on nothing else."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data.draws import uniform


def random_affine(
    images: Tensor,
    *,
    seed: int,
    epoch: int,
    samples: NDArray[np.int64],
    degrees: float,
    scale: float,
    shear: float,
    shift: float,
    fill: float,
) -> Tensor:
    """Turns, scales, shears and shifts each image by its own random amounts.

    Args:
        images: (B, C, H, W), floating point.
        seed: of the run.
        epoch: counted from 0.
        samples: index of each image in the data set, (B,).
        degrees: largest rotation either way.
        scale: largest change of size, as the logarithm of the factor, either way.
        shear: largest shear either way, px of x for each px of y.
        shift: largest shift along each axis, px.
        fill: value of what comes in from outside.

    Returns:
        (B, C, H, W).
    """
    height, width = images.shape[-2:]
    draws = torch.from_numpy(uniform(seed, epoch, samples, "affine", 5) * 2.0 - 1.0).to(images.dtype)
    angle, log_scale, slant, right, down = draws.unbind(1)
    angle = angle * math.radians(degrees)
    cos, sin = (f(angle) * torch.exp(log_scale * scale) for f in (torch.cos, torch.sin))
    first = torch.stack([cos, slant * shear - sin, right * (2.0 * shift / width)], dim=1)
    second = torch.stack([sin, cos, down * (2.0 * shift / height)], dim=1)
    theta = torch.stack([first, second], dim=1)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images - fill, grid, align_corners=False) + fill
