"""Mixing each image of a batch with another: mixup and cutmix.

The other image is the sample that follows in the epoch's order, whatever batch it is in: so a plan's batches
carry one sample more at their end, which is only mixed in.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data.augment import Augment
from convatlas.data.counter_random import uniform
from convatlas.data.geometric import box_mask

TRIES = 64
"""Pairs drawn for one number of the Beta distribution; each fits with a probability of half at least."""


def mix(
    images: Tensor,
    labels: Tensor,
    samples: NDArray[np.int64],
    *,
    augment: Augment,
    seed: int,
    epoch: int,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """Mixes each image but the last with the one behind it.

    Args:
        images: (B + 1, C, H, W), floating point; left as they are.
        labels: (B + 1,).
        samples: index of each image in the data set, (B + 1,); the draws are those of the first B.
        augment: `mixup` and `cutmix`; with both above 0, half of the images get one, half the other.
        seed: of the run.
        epoch: counted from 0.
        num_classes: K.

    Returns:
        Images (B, C, H, W), and targets (B, K): shares that sum to 1.

    Source: Zhang et al. 2017, "mixup"; Yun et al. 2019, "CutMix", Algorithm 1.
    """
    chosen = samples[:-1]
    height, width = images.shape[-2:]
    is_cut = uniform(seed, epoch, chosen, "mix kind", 1)[:, 0] >= _mixup_share(augment)
    kept = np.where(
        is_cut,
        beta(uniform(seed, epoch, chosen, "cutmix", 2 * TRIES), augment.cutmix),
        beta(uniform(seed, epoch, chosen, "mixup", 2 * TRIES), augment.mixup),
    )
    place = uniform(seed, epoch, chosen, "cutmix box", 2)
    own, other = images[:-1], images[1:]
    mixed = own
    if augment.mixup > 0.0:
        weights = _column(np.where(is_cut, 1.0, kept), images)
        mixed = own * weights + other * (1.0 - weights)
    if augment.cutmix > 0.0:
        box = _boxes(np.where(is_cut, kept, 1.0), place, height, width)
        kept = np.where(is_cut, 1.0 - box.sum(dim=(1, 2, 3)).numpy() / (height * width), kept)
        mixed = torch.where(box.to(images.device), other, mixed)
    shares = torch.from_numpy(kept.astype(np.float32)).to(images.device)[:, None]
    classes = F.one_hot(labels, num_classes).float()
    return mixed, classes[:-1] * shares + classes[1:] * (1.0 - shares)


def beta(uniforms: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Numbers of the Beta(alpha, alpha) distribution by Jöhnk's method.

    Args:
        uniforms: (B, 2 * tries) in [0, 1).
        alpha: 0 to 1; with 0 all are 1.

    Returns:
        (B,) in [0, 1].

    Source: Jöhnk 1964; Devroye 1986, "Non-Uniform Random Variate Generation", Section IX.3.
    """
    if alpha == 0.0:
        return np.ones(len(uniforms))
    # In logarithms, since a small alpha makes powers that double precision cannot hold.
    first, second = np.split(np.log1p(-uniforms) / alpha, 2, axis=1)
    total = np.logaddexp(first, second)
    fits = total <= 0.0
    chosen = fits.argmax(axis=1)[:, None]
    return np.exp(np.take_along_axis(first - total, chosen, axis=1)[:, 0])


def _mixup_share(augment: Augment) -> float:
    if augment.mixup > 0.0 and augment.cutmix > 0.0:
        return 0.5
    return 1.0 if augment.mixup > 0.0 else 0.0


def _boxes(kept: NDArray[np.float64], place: NDArray[np.float64], height: int, width: int) -> Tensor:
    """Boxes of an area of 1 - kept around any px, cut off at the border: (B, 1, H, W) of bool."""
    sides = np.sqrt(1.0 - kept)[:, None] * (height, width)
    sides = sides.astype(np.int64)
    corners = (place * (height, width)).astype(np.int64) - sides // 2
    ends = corners + sides
    return box_mask(corners[:, 0], ends[:, 0], corners[:, 1], ends[:, 1], height, width)


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device)[:, None, None, None]
