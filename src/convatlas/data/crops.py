"""One picture of any size to the size that a network sees: crops of training, the crop of testing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from convatlas.data.augment import Augment, Interpolation, Policy, ResizedCrop, ScaleJitter
from convatlas.data.draws import uniform
from convatlas.data.warp import TRIES, fitting_boxes

"""Px a side of the crops for which a `ScaleJitter` is given."""

STRIP = 16
"""Of a picture longer than so many times its short side, the ends are cut off before it is resized, or one of
1 x 20,000 px would grow to gigabytes; the middle that is kept at last lies well within."""


@dataclasses.dataclass(frozen=True)
class TrainFit:
    """Brings a training picture to size, by its own draws.

    By `augment.resized_crop` or `augment.scale_jitter`; with neither, as `TestFit` does. Then comes
    `augment.policy`.

    Attributes:
        augment: what may happen; the operations on batches are left out.
        seed: of the run.
        epoch: counted from 0.
        crop_pct: share of the resized short side that the central crop keeps, without a random crop.
        interpolation: "bilinear" or "bicubic", without a random crop.
    """

    augment: Augment
    seed: int
    epoch: int
    crop_pct: float = 0.875
    interpolation: str = "bilinear"

    def __call__(self, picture: Tensor, sample: int, px: int | None) -> Tensor:
        """Fits one picture.

        Args:
            picture: (C, H, W) of uint8.
            sample: its index in the data set.
            px: a side of the result; None for the picture's own size.

        Returns:
            (C, px, px) of uint8.
        """
        size = (px, px) if px is not None else (picture.shape[1], picture.shape[2])
        if self.augment.resized_crop is not None:
            picture = self._resized_crop(picture, sample, size, self.augment.resized_crop)
        elif self.augment.scale_jitter is not None:
            picture = self._scale_jitter(picture, sample, size, self.augment.scale_jitter)
        elif px is not None:
            picture = central_crop(picture, size, self.crop_pct, self.interpolation)
        if self.augment.policy is not None:
            picture = self._policy(picture, sample, self.augment.policy)
        return picture

    def _draw(self, sample: int, purpose: str, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return uniform(self.seed, self.epoch, np.array([sample]), purpose, count)

    def _resized_crop(self, picture: Tensor, sample: int, size: tuple[int, int], how: ResizedCrop) -> Tensor:
        height, width = picture.shape[1:]
        low, high = how.ratio
        sides = self._draw(sample, "resized crop size", 2 * TRIES)
        heights, widths, fits = fitting_boxes(sides, how.scale, (1.0 / high, 1.0 / low), height, width)
        down, right, kind = self._draw(sample, "resized crop", 3)[0].tolist()
        rows, columns = int(heights[0]), int(widths[0])
        if not fits[0]:  # A picture too long for any crop: the middle of it, as in torchvision.
            rows, columns = min(height, round(width / low)), min(width, round(height * high))
            down = right = 0.5
        top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
        part = picture[:, top : top + rows, left : left + columns]
        return resize(part, size, _interpolation(how.interpolation, kind))

    def _scale_jitter(self, picture: Tensor, sample: int, size: tuple[int, int], how: ScaleJitter) -> Tensor:
        drawn, down, right, kind = self._draw(sample, "scale jitter", 4)[0].tolist()
        short_side = how.low + int(drawn * (how.high - how.low + 1))
        picture = _cover(picture, size, how.crop / short_side, _interpolation(how.interpolation, kind))
        top = int(down * (picture.shape[1] - size[0] + 1))
        left = int(right * (picture.shape[2] - size[1] + 1))
        return picture[:, top : top + size[0], left : left + size[1]]

    def _policy(self, picture: Tensor, sample: int, policy: Policy) -> Tensor:
        number = int(self._draw(sample, "policy", 1)[0, 0] * 2**53)
        # torchvision draws from torch's global generator: it gets a state of this picture's own.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return _torchvision_policy(policy)(picture)


@dataclasses.dataclass(frozen=True)
class TestFit:
    """Brings a test picture to size: the short side is resized, and the middle cut out.

    Attributes:
        px: a side of the result, where the call says no other.
        crop_pct: share of the resized short side that the crop keeps.
        interpolation: "bilinear" or "bicubic".
    """

    __test__ = False  # Not a class of tests, whatever pytest makes of its name.

    px: int
    crop_pct: float = 0.875
    interpolation: str = "bilinear"

    def __call__(self, picture: Tensor, sample: int = 0, px: int | None = None) -> Tensor:
        """Fits one picture (C, H, W) of uint8: (C, px, px). `sample` makes no difference."""
        size = self.px if px is None else px
        return central_crop(picture, (size, size), self.crop_pct, self.interpolation)


def central_crop(picture: Tensor, size: tuple[int, int], crop_pct: float, interpolation: str) -> Tensor:
    """Resizes the short side and cuts out the middle.

    Args:
        picture: (C, H, W) of uint8.
        size: height and width of the result, px.
        crop_pct: share of the resized short side that is kept.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (C, *size) of uint8.
    """
    longest = STRIP * min(picture.shape[1:])
    picture = _middle(picture, (min(picture.shape[1], longest), min(picture.shape[2], longest)))
    return _centre(_resize_short(picture, size, crop_pct, interpolation), size)


def _resize_short(picture: Tensor, size: tuple[int, int], share: float, interpolation: str) -> Tensor:
    """Resizes as torchvision's `Resize(round(max(size) / share))`: the long side is cut to whole px."""
    height, width = picture.shape[1:]
    short = max(1, round(max(size) / share))
    long = int(short * max(height, width) / min(height, width))
    sides = (short, long) if height <= width else (long, short)
    return resize(picture, (max(size[0], sides[0]), max(size[1], sides[1])), interpolation)


def _centre(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts out the middle as torchvision's `CenterCrop`, which rounds halves to even."""
    top, left = (round((have - want) / 2.0) for have, want in zip(picture.shape[1:], size, strict=True))
    return picture[:, top : top + size[0], left : left + size[1]]


def _middle(picture: Tensor, size: tuple[int, int]) -> Tensor:
    top, left = (picture.shape[1] - size[0]) // 2, (picture.shape[2] - size[1]) // 2
    return picture[:, top : top + size[0], left : left + size[1]]


def resize(picture: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resizes a picture.

    Args:
        picture: (C, H, W) of uint8.
        size: height and width of the result, px.
        interpolation: "bilinear" or "bicubic" (as wide as the pixels of the result, as Pillow's), "nearest"
            or "area".

    Returns:
        (C, *size) of uint8.

    Raises:
        ValueError: the interpolation is unknown.
    """
    if tuple(picture.shape[1:]) == size:
        return picture
    # Added so, the dimension hides the layout of no picture: torch is twice as fast on channels-last bytes.
    batch = picture.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
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


def _cover(picture: Tensor, size: tuple[int, int], share: float, interpolation: str) -> Tensor:
    """Resizes so that the longer side of `size` is `share` of the picture's short side."""
    factor = max(size) / share / min(picture.shape[1:])
    height, width = (
        max(least, round(side * factor)) for side, least in zip(picture.shape[1:], size, strict=True)
    )
    return resize(picture, (height, width), interpolation)


def _interpolation(name: Interpolation, draw: float) -> str:
    return name if name != "random" else ("nearest", "bilinear", "bicubic", "area")[int(draw * 4)]


@functools.cache
def _torchvision_policy(policy: Policy) -> Callable[[Tensor], Tensor]:
    # Late: torchvision takes seconds to import, and few recipes need it.
    from torchvision.transforms import v2

    if policy.kind == "rand_augment":
        return v2.RandAugment(policy.num_ops, policy.magnitude)
    return v2.TrivialAugmentWide()


def with_channels(picture: Tensor, chans: int) -> Tensor:
    """Brings a picture to the channels of a network: grey to colour, or colour to grey.

    Args:
        picture: (C, H, W) of uint8, C being 1 or 3.
        chans: 1 or 3.

    Raises:
        ValueError: there is no way from the one to the other.
    """
    if len(picture) == chans:
        return picture
    if len(picture) == 1:
        return picture.expand(chans, -1, -1)
    if chans == 1 and len(picture) == 3:
        grey = Image.fromarray(picture.permute(1, 2, 0).numpy()).convert("L")
        return torch.from_numpy(np.array(grey))[None]
    raise ValueError(f"a picture has {len(picture)} channels; the network takes {chans}")
