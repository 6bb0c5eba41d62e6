"""One image of any size to the size that a network sees: crops of training, the crop of testing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convatlas.data.augment import Augment, Interpolation, Policy, ResizedCrop, ScaleJitter
from convatlas.data.counter_random import uniform
from convatlas.data.fit import Fit, fit_image, squared
from convatlas.data.geometric import TRIES, fitting_boxes
from convatlas.data.resize import resize


@dataclasses.dataclass(frozen=True)
class TrainFit:
    """Brings a training image to size, by its own draws.

    By `augment.resized_crop` or `augment.scale_jitter`; with neither, as `TestFit` does. Then comes
    `augment.policy`.

    Attributes:
        augment: what may happen; the operations on batches are left out.
        seed: of the run.
        epoch: counted from 0.
        crop_pct: share of the resized short side that the central crop keeps, without a random crop.
        interpolation: "bilinear" or "bicubic", without a random crop.
        fit: how an image that is not square becomes one; random crops are of what it makes. Of "tiles" an
            epoch shows one at a random place.
        fill: of "pad": value of each channel where the image does not reach.
    """

    augment: Augment
    seed: int
    epoch: int
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    fit: Fit = "crop"
    fill: tuple[int, ...] = ()

    def __call__(self, image: Tensor, sample: int, px: int | None) -> Tensor:
        """Fits one image.

        Args:
            image: (C, H, W) of uint8.
            sample: its index in the data set.
            px: a side of the result; None for the image's own size.

        Returns:
            (C, px, px) of uint8.
        """
        size = (px, px) if px is not None else (image.shape[1], image.shape[2])
        if px is not None and (self.augment.crops or self.fit == "tiles"):
            image = self._squared(image, sample, px)
        if self.augment.resized_crop is not None:
            image = self._resized_crop(image, sample, size, self.augment.resized_crop)
        elif self.augment.scale_jitter is not None:
            image = self._scale_jitter(image, sample, size, self.augment.scale_jitter)
        elif px is not None:
            image = fit_image(
                image,
                size,
                self.fit,
                crop_pct=self.crop_pct,
                interpolation=self.interpolation,
                fill=self.fill,
            )
        if self.augment.policy is not None:
            image = self._policy(image, sample, self.augment.policy)
        return image

    def _squared(self, image: Tensor, sample: int, px: int) -> Tensor:
        place = self._draw(sample, "tile", 1)[0, 0] if self.fit == "tiles" else 0.5
        how = self.interpolation
        return squared(image, self.fit, px=px, interpolation=how, fill=self.fill, place=float(place))

    def _draw(self, sample: int, purpose: str, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return uniform(self.seed, self.epoch, np.array([sample]), purpose, count)

    def _resized_crop(self, image: Tensor, sample: int, size: tuple[int, int], how: ResizedCrop) -> Tensor:
        height, width = image.shape[1:]
        low, high = how.ratio
        sides = self._draw(sample, "resized crop size", 2 * TRIES)
        heights, widths, fits = fitting_boxes(sides, how.scale, (1.0 / high, 1.0 / low), height, width)
        down, right, kind = self._draw(sample, "resized crop", 3)[0].tolist()
        rows, columns = int(heights[0]), int(widths[0])
        if not fits[0]:  # An image too long for any crop: the middle of it, as in torchvision.
            rows, columns = min(height, round(width / low)), min(width, round(height * high))
            down = right = 0.5
        top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
        part = image[:, top : top + rows, left : left + columns]
        return resize(part, size, _interpolation(how.interpolation, kind))

    def _scale_jitter(self, image: Tensor, sample: int, size: tuple[int, int], how: ScaleJitter) -> Tensor:
        drawn, down, right, kind = self._draw(sample, "scale jitter", 4)[0].tolist()
        short_side = how.low + int(drawn * (how.high - how.low + 1))
        image = _cover(image, size, how.crop / short_side, _interpolation(how.interpolation, kind))
        top = int(down * (image.shape[1] - size[0] + 1))
        left = int(right * (image.shape[2] - size[1] + 1))
        return image[:, top : top + size[0], left : left + size[1]]

    def _policy(self, image: Tensor, sample: int, policy: Policy) -> Tensor:
        number = int(self._draw(sample, "policy", 1)[0, 0] * 2**53)
        # torchvision draws from torch's global generator: it gets a state of this image's own.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return _torchvision_policy(policy)(image)


@dataclasses.dataclass(frozen=True)
class TestFit:
    """Brings a test image to size, by the middle of the resized image where `fit` says nothing else.

    Attributes:
        px: a side of the result, where the call says no other.
        crop_pct: share of the resized short side that the crop keeps.
        interpolation: "bilinear" or "bicubic".
        fit: how an image that is not square becomes one.
        fill: of "pad": value of each channel where the image does not reach.
        view: of "tiles": which one.
    """

    __test__ = False  # Not a class of tests, whatever pytest makes of its name.

    px: int
    crop_pct: float = 0.875
    interpolation: str = "bilinear"
    fit: Fit = "crop"
    fill: tuple[int, ...] = ()
    view: int = 0

    def __call__(self, image: Tensor, sample: int = 0, px: int | None = None) -> Tensor:
        """Fits one image (C, H, W) of uint8: (C, px, px). `sample` makes no difference."""
        size = self.px if px is None else px
        return fit_image(
            image,
            (size, size),
            self.fit,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            fill=self.fill,
            view=self.view,
        )


def _cover(image: Tensor, size: tuple[int, int], share: float, interpolation: str) -> Tensor:
    """Resizes so that the longer side of `size` is `share` of the image's short side."""
    factor = max(size) / share / min(image.shape[1:])
    height, width = (
        max(least, round(side * factor)) for side, least in zip(image.shape[1:], size, strict=True)
    )
    return resize(image, (height, width), interpolation)


def _interpolation(name: Interpolation, draw: float) -> str:
    return name if name != "random" else ("nearest", "bilinear", "bicubic", "area")[int(draw * 4)]


@functools.cache
def _torchvision_policy(policy: Policy) -> Callable[[Tensor], Tensor]:
    # Late: torchvision takes seconds to import, and few recipes need it.
    from torchvision.transforms import v2

    if policy.kind == "rand_augment":
        return v2.RandAugment(policy.num_ops, policy.magnitude)
    return v2.TrivialAugmentWide()


def with_channels(image: Tensor, chans: int) -> Tensor:
    """Brings an image to the channels of a network: grey to colour, or colour to grey.

    Args:
        image: (C, H, W) of uint8, C being 1 or 3.
        chans: 1 or 3.

    Raises:
        ValueError: there is no way from the one to the other.
    """
    if len(image) == chans:
        return image
    if len(image) == 1:
        return image.expand(chans, -1, -1)
    if chans == 1 and len(image) == 3:
        grey = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
        return torch.from_numpy(np.array(grey))[None]
    raise ValueError(f"an image has {len(image)} channels; the network takes {chans}")
