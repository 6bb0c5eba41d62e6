"""Colours of a batch: jitter, lighting and normalisation, as one multiplication and one addition."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convatlas.data.augment import ColourJitter

GREY = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in grey (ITU-R BT.601)."""

LIGHT_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045])
"""Standard deviations of ImageNet's colours along their principal axes, for values in [0, 1]; from
fb.resnet.torch, which has them from cuda-convnet2."""

LIGHT_AXES = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
)
"""The axes, as columns; rows are red, green and blue. Same source."""


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Brings pixels to mean 0 and deviation 1.

    Args:
        images: (..., C, H, W), values 0 to 255.
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.

    Returns:
        (..., C, H, W) of float32, channels-last in memory.
    """
    scale, offset = normalisation(mean, std)
    return _scale(images, scale, offset)


def recolour(
    images: Tensor,
    draw: Callable[[str, int], NDArray[np.float64]],
    jitter: ColourJitter | None,
    lighting: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Draws each image's jitter and lighting, applies them, and normalises.

    Args:
        images: (B, C, H, W), values 0 to 255.
        draw: gives, for a purpose and a count, numbers in [0, 1): (B, count).
        jitter: the largest amounts; None for no jitter.
        lighting: standard deviation of the steps along the principal colours; 0 for none.
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.

    Returns:
        (B, C, H, W) of float32, channels-last in memory.

    Raises:
        ValueError: jitter of images with neither 1 nor 3 channels, or lighting of others than 3.
    """
    batch, chans = images.shape[:2]
    if jitter is not None and chans not in (1, 3):
        raise ValueError(f"`colour_jitter`: works on images of 1 or 3 channels; these have {chans}")
    if lighting > 0.0 and chans != 3:
        raise ValueError(
            f"`lighting`={lighting:g}: works on images of 3 channels; these have {chans}: set it to 0 "
            "(--set augment.lighting=0)"
        )
    factors = np.ones((batch, 3)) if jitter is None else jitter_factors(draw("colour", 3), jitter)
    steps = np.zeros((batch, 1)) if lighting == 0.0 else light_steps(draw("lighting", 6), lighting)
    return adjust(images, factors, steps, mean, std)


def jitter_factors(uniforms: NDArray[np.float64], jitter: ColourJitter) -> NDArray[np.float64]:
    """Factors of brightness, contrast and saturation: from draws (B, 3) in [0, 1) to (B, 3)."""
    amounts = np.array([jitter.brightness, jitter.contrast, jitter.saturation])
    return 1.0 + amounts * (uniforms * 2.0 - 1.0)


def light_steps(uniforms: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """What is added to red, green and blue, for values in [0, 1]: from draws (B, 6) in [0, 1) to (B, 3).

    Source: Krizhevsky et al. 2012, Section 4.1.
    """
    # Two uniform numbers make a normal one (Box and Muller 1958).
    normal = np.sqrt(-2.0 * np.log1p(-uniforms[:, :3])) * np.cos(2.0 * np.pi * uniforms[:, 3:])
    steps = deviation * normal * LIGHT_DEVIATIONS
    # A sum of products, not a matrix product, whose rounding may depend on the number of rows.
    return (steps[:, None, :] * LIGHT_AXES).sum(axis=2)


def adjust(
    images: Tensor,
    factors: NDArray[np.float64],
    steps: NDArray[np.float64],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Changes brightness, contrast, saturation and light, and normalises.

    All of these are linear in a pixel's colours, so that they are done at once: a pixel x of grey g in an
    image of mean grey m becomes b (c (s x + (1 - s) g) + (1 - c) m) + step. Without clipping between them, as
    in fb.resnet.torch, their order makes no difference.

    Args:
        images: (B, C, H, W), values 0 to 255; C is 1 or 3.
        factors: b, c and s, (B, 3).
        steps: what is added, for values in [0, 1], (B, C) or (B, 1).
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.

    Returns:
        (B, C, H, W) of float32, channels-last in memory.
    """
    brightness, contrast, saturation = factors.T[:, :, None]  # each (B, 1)
    scale, offset = normalisation(mean, std)
    offset = offset + scale * 255.0 * steps
    if (contrast != 1.0).any():
        offset = offset + scale * brightness * (1.0 - contrast) * _mean_grey(images)
    scale = scale * (brightness * contrast)
    if images.shape[1] == 1 or (saturation == 1.0).all():
        return _scale(images, scale, offset)
    return _scale(images, scale * saturation, offset, scale * (1.0 - saturation))


def _mean_grey(images: Tensor) -> NDArray[np.float64]:
    # Sums of whole numbers are exact, in whatever order they are taken.
    means = images.sum(dim=(2, 3), dtype=torch.float64).cpu().numpy() / (images.shape[2] * images.shape[3])
    return (means * (GREY if images.shape[1] == 3 else 1.0)).sum(axis=1, keepdims=True)


def normalisation(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What pixels of 0 to 255 are multiplied by, and what is then added, each (C,)."""
    return 1.0 / (255.0 * np.array(std)), -np.array(mean) / np.array(std)


def _scale(
    images: Tensor,
    scale: NDArray[np.float64],
    offset: NDArray[np.float64],
    grey_scale: NDArray[np.float64] | None = None,
) -> Tensor:
    """Multiplies and adds with numbers (C,) or (B, C), channel by channel; `grey_scale` multiplies the grey.

    A channel at a time is ten times as fast as broadcasting three numbers over the last axis. Products and
    sums are rounded one by one, so that nothing depends on how the elements are spread over vector lanes.
    """
    factors, offsets, grey_factors = (
        torch.from_numpy(values.astype(np.float32)).to(images.device)[..., None, None]
        for values in (scale, offset, scale if grey_scale is None else grey_scale)
    )
    *lead, chans, height, width = images.shape
    out = torch.empty(*lead, height, width, chans, device=images.device)
    # Copies, also of images that are float32 already: they are changed in place.
    planes = [images[..., c, :, :].to(torch.float32, copy=True) for c in range(chans)]
    grey = None
    if grey_scale is not None:
        grey = planes[0] * GREY[0] + planes[1] * GREY[1] + planes[2] * GREY[2]
    for c, plane in enumerate(planes):
        scaled = plane.mul_(factors[..., c, :, :])
        if grey is not None:
            scaled += grey * grey_factors[..., c, :, :]
        torch.add(scaled, offsets[..., c, :, :], out=out[..., c])
    return out.movedim(-1, -3)
